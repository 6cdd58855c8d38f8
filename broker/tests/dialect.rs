//! A client that knows the dialect and nothing else speaks to the broker's binary.

mod script;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use script::Script;
use serde_json::Value;

struct Broker(Child);

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[tokio::test]
async fn a_client_that_knows_nothing_else_is_served() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_broker, address) = serve(dir.path());
    let mut script = Script::new(address);
    script.play(include_str!("fixtures/dialect.jsonl")).await;
}

fn serve(dir: &std::path::Path) -> (Broker, SocketAddr) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bowline-broker"))
        .args(["serve", "--json", "--listen", "127.0.0.1:0", "--data"])
        .arg(dir.join("data"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the broker starts");
    let stdout = child.stdout.take().expect("piped");
    let broker = Broker(child);
    let mut line = String::new();
    let mut lines = BufReader::new(stdout);
    lines.read_line(&mut line).expect("a first line");
    let said: Value = serde_json::from_str(&line).expect("the first line is JSON");
    let address = said["listening"].as_str().expect("its address");
    (broker, address.parse().expect("an address"))
}
