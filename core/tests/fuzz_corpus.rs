//! Replays the fuzzer's committed corpus on stable Rust, through what the fuzzer itself runs.
//!
//! What was written by hand says in its name what it is: `client_*` and `broker_*` are frames,
//! `invite_*` are invites, and `bad_*` is none of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use bowline_core::crypto::invite::InviteToken;
use bowline_core::wire::{BrokerFrame, decode_broker, decode_client, encode_broker, encode_client};

#[path = "../../fuzz/checks/handshake.rs"]
mod handshake;
#[path = "../../fuzz/checks/ipc_body.rs"]
mod ipc_body;
#[path = "../../fuzz/checks/wire_decode.rs"]
mod wire_decode;

fn corpus_of(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let directory = folder.join(target);
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn corpus() -> Vec<(String, Vec<u8>)> {
    corpus_of("wire_decode")
}

#[test]
fn nothing_in_the_corpus_breaks_a_reader() {
    let checks: [(&str, fn(&[u8])); 3] = [
        ("wire_decode", wire_decode::wire_decode),
        ("handshake", handshake::handshake),
        ("ipc_body", ipc_body::ipc_body),
    ];
    for (target, check) in checks {
        let files = corpus_of(target);
        assert!(files.len() > 10, "{target}: {} files", files.len());
        for (name, bytes) in files {
            println!("{target}: {name}");
            check(&bytes);
        }
    }
}

#[test]
fn what_was_written_by_hand_is_read_as_what_it_is() {
    for (name, bytes) in corpus() {
        let is_client = decode_client(&bytes).is_ok();
        let is_broker = matches!(decode_broker(&bytes), Ok(frame) if frame != BrokerFrame::Unknown);
        let is_invite = str::from_utf8(&bytes).is_ok_and(|link| InviteToken::decode(link).is_ok());
        let read_as = (is_client, is_broker, is_invite);
        match name.split_once('_') {
            Some(("client", _)) => assert_eq!(read_as, (true, false, false), "{name}"),
            Some(("broker", _)) => assert_eq!(read_as, (false, true, false), "{name}"),
            Some(("invite", _)) => assert_eq!(read_as, (false, false, true), "{name}"),
            Some(("bad", _)) => assert_eq!(read_as, (false, false, false), "{name}"),
            _ => {}
        }
    }
}

#[test]
fn every_kind_of_frame_is_in_the_corpus() {
    let kind = |frame: &[u8]| -> String {
        let frame: serde_json::Value = serde_json::from_slice(frame).unwrap();
        frame["type"].as_str().unwrap().to_owned()
    };
    let kinds = |prefix: &str, kind: &dyn Fn(&[u8]) -> String| -> String {
        let kinds: BTreeSet<String> = corpus()
            .into_iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(_, bytes)| kind(&bytes))
            .collect();
        kinds.into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        kinds("client_", &|bytes| kind(&encode_client(
            &decode_client(bytes).unwrap()
        ))),
        "ban bye client_ack disconnect hello join_group kick leave_group list_bans list_peers \
         ping send session_hello set_profile set_stats set_status set_summary set_visible unban"
    );
    assert_eq!(
        kinds("broker_", &|bytes| kind(&encode_broker(
            &decode_broker(bytes).unwrap()
        ))),
        "ack ban_ack disconnect_ack error event hello_ack kick_ack list_bans_result ok peers_list \
         pong push stream unban_ack"
    );
}
