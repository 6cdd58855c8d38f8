//! What holds of any request over the IPC: it is one, or it is answered with a code and what to do.
//!
//! `METHOD PATH[?QUERY]`, header lines, an empty line, the body.

use bowline_core::host::ipc::{HttpRequest, parse};

/// # Panics
/// If reading it does, or a refusal says nothing.
pub fn ipc_body(bytes: &[u8]) {
    let (head, body) = match bytes.windows(2).position(|two| two == b"\n\n") {
        Some(at) => (&bytes[..at], &bytes[at + 2..]),
        None => (bytes, &[][..]),
    };
    let Ok(head) = str::from_utf8(head) else {
        return;
    };
    let mut lines = head.lines();
    let Some((method, target)) = lines.next().and_then(|line| line.split_once(' ')) else {
        return;
    };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    for unix in [true, false] {
        let refused = parse(&HttpRequest {
            unix,
            method,
            path,
            query,
            header: &|name| {
                let found = headers
                    .iter()
                    .find(|(own, _)| own.eq_ignore_ascii_case(name));
                found.map(|(_, value)| *value)
            },
            body,
        });
        let Err(answer) = refused else { continue };
        assert!((400..500).contains(&answer.status), "{answer:?}");
        for field in ["code", "message"] {
            let said = answer.body["error"][field].as_str();
            assert!(
                said.is_some_and(|said| !said.is_empty()),
                "no {field}: {answer:?}"
            );
        }
    }
}
