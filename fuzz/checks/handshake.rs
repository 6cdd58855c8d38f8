//! What holds of both ends of a connection, whatever comes over it and in whatever order: no panic,
//! nobody is attached who was not let in, what waits is bounded, and nothing follows the end.

use std::sync::Arc;

use bowline_core::crypto::stand_in::StandIn;
use bowline_core::crypto::{Crypto, SecretKey};
use bowline_core::id::Role;
use bowline_core::limits::FRAME_BYTES;
use bowline_core::link::{
    ClientLink, DialPlan, ServerLink, ServerLinkConfig, SessionIdentity, client, server,
};
use bowline_core::machine::Machine;
use bowline_core::time::{Mono, Now, Wall};
use bowline_core::wire::ProtocolVersion;
use bowline_core::wire::client::About;
use bowline_core::wire::feature::Terms;
use bytes::Bytes;

#[path = "script.rs"]
mod script;

use script::Script;

const STARTED: Wall = Wall(1_700_000_000_000);
/// One input never makes more of them.
const OUTPUTS_OF_AN_INPUT_MOST: usize = 4_096;

struct Ends {
    now: Now,
    server: ServerLink,
    client: ClientLink,
    /// What the client wrote, to be handed on whole.
    written: Vec<Bytes>,
    attached: bool,
    server_ended: bool,
    client_ended: bool,
}

/// # Panics
/// If a link does, or breaks what holds.
pub fn handshake(bytes: &[u8]) {
    let mut script = Script(bytes);
    let mut ends = Ends::new(script.byte().unwrap_or(0));
    while let Some(verb) = script.byte() {
        match verb % 12 {
            0 => ends.tell_server(server::Input::Text(Bytes::copy_from_slice(script.piece()))),
            1 => ends.tell_server(server::Input::Alive),
            2 => ends.tell_server(server::Input::PingSent),
            3 => ends.tell_server(server::Input::Attached),
            4 => ends.tell_server(server::Input::Closed),
            5 => ends.pass(u64::from(script.number())),
            6 => ends.tell_client(client::Input::Text(Bytes::copy_from_slice(script.piece()))),
            7 => ends.tell_client(client::Input::Connected),
            8 => ends.hand_on(),
            9 => ends.tell_client(client::Input::Alive),
            10 => ends.tell_client(client::Input::PingSent),
            _ => ends.spurious(),
        }
    }
}

impl Ends {
    fn new(who: u8) -> Self {
        let now = Now {
            mono: Mono(0),
            wall: STARTED,
        };
        let crypto: Arc<dyn Crypto> = Arc::new(StandIn);
        let roles = [None, Some(Role::Session), Some(Role::Service)];
        let plan = DialPlan {
            url: "ws://127.0.0.1:1/ws".into(),
            mesh: "m1".into(),
            member_id: "p1".into(),
            member_secret: SecretKey::from_bytes([1; 32]),
            session: roles[usize::from(who) % roles.len()].map(|role| SessionIdentity {
                secret: SecretKey::from_bytes([2; 32]),
                role,
            }),
            session_id: "s1".into(),
            about: About::default(),
            resume: None,
            quiet: false,
            receipts: None,
            terms: Terms::default(),
            sealed: false,
            clock_offset_ms: 0,
        };
        let config = ServerLinkConfig {
            started: STARTED,
            version: ProtocolVersion::SPOKEN,
        };
        Self {
            now,
            server: ServerLink::new(now, config, Arc::clone(&crypto)),
            client: ClientLink::new(now, plan, crypto),
            written: Vec::new(),
            attached: false,
            server_ended: false,
            client_ended: false,
        }
    }

    fn tell_server(&mut self, input: server::Input) {
        // A shell tells nobody anything after the end.
        if self.server_ended {
            return;
        }
        self.server_ended = matches!(input, server::Input::Closed);
        self.server.handle_input(self.now, input);
        self.drain_server();
    }

    fn tell_client(&mut self, input: client::Input) {
        if self.client_ended {
            return;
        }
        self.client.handle_input(self.now, input);
        self.drain_client();
    }

    /// What our own client wrote reaches the broker as it is.
    fn hand_on(&mut self) {
        for text in std::mem::take(&mut self.written) {
            self.tell_server(server::Input::Text(text));
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono.0 += ms * 1_000;
        self.now.wall.0 += ms;
        if !self.server_ended {
            self.server.handle_timeout(self.now);
            self.drain_server();
            let due = self.server.poll_timeout();
            assert!(
                due.is_none_or(|due| due.at > self.now.mono),
                "a deadline is left behind"
            );
        }
        if !self.client_ended {
            self.client.handle_timeout(self.now);
            self.drain_client();
            let due = self.client.poll_timeout();
            assert!(
                due.is_none_or(|due| due.at > self.now.mono),
                "a deadline is left behind"
            );
        }
    }

    fn spurious(&mut self) {
        if self.server_ended {
            return;
        }
        let before = self.server.poll_timeout().map(|due| due.at);
        self.server.handle_timeout(self.now);
        assert!(
            self.server.poll_output().is_none(),
            "a spurious time-out does something"
        );
        assert_eq!(self.server.poll_timeout().map(|due| due.at), before);
    }

    fn drain_server(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.server.poll_output() {
            outputs += 1;
            assert!(outputs < OUTPUTS_OF_AN_INPUT_MOST, "there is no end to it");
            match output {
                server::Output::Attach(hello) => {
                    assert!(!self.attached, "attached twice");
                    assert!(hello.role != Role::ControlPlane || hello.attestation.is_none());
                    self.attached = true;
                }
                server::Output::Frame(_) => assert!(self.attached, "a frame of nobody"),
                server::Output::Send(bytes) => assert!(bytes.len() <= FRAME_BYTES),
                server::Output::Close(_) => self.server_ended = true,
                server::Output::Ping | server::Output::Pause | server::Output::Resume => {}
            }
        }
    }

    fn drain_client(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.client.poll_output() {
            outputs += 1;
            assert!(outputs < OUTPUTS_OF_AN_INPUT_MOST, "there is no end to it");
            match output {
                client::Output::Send(bytes) => self.written.push(bytes),
                client::Output::Close(_) | client::Output::Down(_) => self.client_ended = true,
                client::Output::Ping | client::Output::Up(_) | client::Output::Frame(_) => {}
            }
        }
    }
}
