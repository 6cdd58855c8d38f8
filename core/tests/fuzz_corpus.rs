//! Replays the fuzzer's committed corpus on stable Rust, through what the fuzzer itself runs.
//!
//! What was written by hand says in its name what it is: `client_*` and `broker_*` are frames,
//! `invite_*` are invites, and `bad_*` is none of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use bowline_core::crypto::invite::InviteToken;
use bowline_core::wire::{BrokerFrame, decode_broker, decode_client, encode_broker, encode_client};

#[path = "../../fuzz/checks/wire_decode.rs"]
mod check;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/wire_decode");
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

#[test]
fn nothing_in_the_corpus_breaks_a_reader() {
    for (name, bytes) in corpus() {
        println!("{name}");
        check::wire_decode(&bytes);
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
        "bye client_ack hello join_group leave_group list_peers ping send session_hello \
         set_profile set_stats set_status set_summary set_visible"
    );
    assert_eq!(
        kinds("broker_", &|bytes| kind(&encode_broker(
            &decode_broker(bytes).unwrap()
        ))),
        "ack error event hello_ack ok peers_list pong push stream"
    );
}
