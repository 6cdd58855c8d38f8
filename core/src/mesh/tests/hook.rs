//! What a program beside a session says of it over HTTP.

use super::*;

const SESSION: fn(&str) -> Whose = |id| Whose::Session(id.into());

/// Sessions 1, 2 and 11 in `/work`, with their numbers as pids; 3 in `/play`. All on this host but
/// for 11.
fn here() -> (Rig, [ConnId; 4]) {
    let mut rig = rig();
    rig.local = true;
    let [one, two] = [1, 2].map(|who| rig.connect_with(who, in_directory(who, "/work")));
    let three = rig.connect_with(3, in_directory(3, "/play"));
    rig.local = false;
    let elsewhere = rig.connect_with(11, in_directory(11, "/work"));
    rig.settle();
    (rig, [one, two, three, elsewhere])
}

fn in_directory(who: u8, cwd: &str) -> impl FnOnce(&mut VerifiedHello) {
    move |hello| {
        hello.about.pid = who.into();
        hello.about.cwd = cwd.into();
    }
}

fn process(cwd: &str, pid: u64) -> Whose {
    let cwd = cwd.into();
    Whose::Process { cwd, pid }
}

fn directory(cwd: &str) -> Whose {
    Whose::Directory(cwd.into())
}

impl Rig {
    fn hook(&mut self, whose: Whose, status: Status) -> Response {
        self.input(Input::Request {
            request: RequestId(1),
            what: Request::SetStatus { whose, status },
        });
        self.settle();
        self.responses.pop().expect("an answer").1
    }

    fn sets(&mut self, conn: ConnId, status: Status) {
        let req_id = None;
        self.frame(conn, ClientFrame::SetStatus { status, req_id });
        self.settle();
    }

    fn statuses(&self) -> Vec<(u8, Status)> {
        let peers = self.image.peers.values();
        let mut statuses: Vec<_> = peers
            .map(|row| (row.pubkey.0[0], row.registration.status))
            .collect();
        statuses.sort_unstable();
        statuses
    }
}

fn idle_but(who: u8, status: Status) -> Vec<(u8, Status)> {
    let of = |one| (one, if one == who { status } else { Status::Idle });
    [1, 2, 3, 11].map(of).into()
}

#[test]
fn the_peer_that_is_meant_is_set_and_no_other() {
    for (whose, who) in [
        (SESSION("session-1"), 1),
        (SESSION("session-3"), 3),
        (process("/work", 1), 1),
        (process("/work", 2), 2),
        (directory("/work"), 2),
        (directory("/play"), 3),
    ] {
        let (mut rig, _) = here();
        let set = rig.hook(whose.clone(), Status::Working);
        assert_eq!(set, Response::StatusSet, "{whose:?}");
        assert_eq!(rig.statuses(), idle_but(who, Status::Working), "{whose:?}");
    }
}

#[test]
fn nobody_is_taken_for_another() {
    let (mut rig, [.., three, _]) = here();
    rig.close(three);
    for whose in [
        SESSION("session-4"),
        // On another host, whatever it calls itself and wherever it says that it runs.
        SESSION("session-11"),
        process("/work", 11),
        process("/play", 1),
        directory("/"),
        // Away: who connects again may be another process.
        directory("/play"),
    ] {
        let set = rig.hook(whose.clone(), Status::Working);
        assert_eq!(set, Response::NobodyThere, "{whose:?}");
    }
    assert_eq!(rig.statuses(), idle_but(0, Status::Working));
}

#[test]
fn the_newest_is_who_connected_last() {
    let (mut rig, [one, ..]) = here();
    rig.close(one);
    rig.local = true;
    rig.connect_with(1, in_directory(1, "/work"));
    rig.settle();
    rig.hook(directory("/work"), Status::Working);
    assert_eq!(rig.statuses(), idle_but(1, Status::Working));
}

#[test]
fn dnd_is_taken_back_by_nobody_else() {
    let (mut rig, [one, ..]) = here();
    rig.sets(one, Status::Dnd);
    for status in [Status::Idle, Status::Working] {
        let left = rig.hook(SESSION("session-1"), status);
        assert_eq!(left, Response::StatusSet);
        assert_eq!(rig.statuses(), idle_but(1, Status::Dnd));
    }
    rig.sets(one, Status::Idle);
    rig.hook(SESSION("session-1"), Status::Dnd);
    assert_eq!(rig.statuses(), idle_but(1, Status::Dnd));
}

#[test]
fn what_a_hook_says_counts_like_a_peers_own_word() {
    let (mut rig, [one, _, _, elsewhere]) = here();
    rig.hook(SESSION("session-1"), Status::Working);
    rig.send(elsewhere, 1, "m1");
    rig.settle();
    assert!(rig.pushes(one).is_empty());
    rig.hook(SESSION("session-1"), Status::Idle);
    assert_eq!(rig.push_ids(one), ["m1"]);

    rig.hook(SESSION("session-1"), Status::Working);
    rig.advance(Duration::from_secs(600));
    assert_eq!(rig.statuses(), idle_but(0, Status::Working), "it lapses");
}

#[test]
fn the_surest_is_asked_first_and_the_rest_where_nobody_was_found() {
    use crate::mesh::http::{hook_answer, hook_set_status};
    let body = br#"{"cwd":"/work","pid":2,"status":"working","session_id":"s"}"#;
    let whose = |body: &[u8]| -> Vec<Whose> {
        let requests = hook_set_status(body, true).expect("it is well formed");
        let whose = requests.into_iter().map(|request| match request {
            Request::SetStatus { whose, .. } => whose,
            other => panic!("{other:?}"),
        });
        whose.collect()
    };
    assert_eq!(
        whose(body),
        [SESSION("s"), process("/work", 2), directory("/work")]
    );
    let least = br#"{"cwd":"/work","status":"dnd"}"#;
    assert_eq!(whose(least), [directory("/work")]);

    let refused = |body: &[u8], local| {
        let refusal = hook_set_status(body, local).expect_err("it is refused");
        (refusal.status, refusal.code)
    };
    assert_eq!(refused(body, false), (401, "unauthorized"));
    assert_eq!(refused(b"{}", true), (400, "bad_request"));
    let unheard_of = br#"{"cwd":"/","status":"asleep"}"#;
    assert_eq!(refused(unheard_of, true), (400, "bad_request"));

    let busy = Response::Refused {
        code: "busy",
        message: "later",
    };
    let status = |responses: &[Response]| hook_answer(responses).map(|answer| answer.status);
    assert_eq!(status(&[Response::NobodyThere]), None);
    assert_eq!(status(&[]), None);
    assert_eq!(
        status(&[Response::NobodyThere, busy.clone()]),
        Some(503),
        "it may be there: the next guess is another peer"
    );
    assert_eq!(status(&[busy, Response::StatusSet]), Some(200));
}
