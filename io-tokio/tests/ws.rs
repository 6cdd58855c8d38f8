//! WebSocket connections over loopback, with toy links that pass texts through.

mod toy;

use std::time::Duration;

use bowline_core::limits::{FRAME_BYTES, HELLO_FRAME_BYTES};
use bowline_core::link::Down;
use bowline_core::wire::Close;
use bowline_io::http::{self, Target};
use bowline_io::net::{Connector, Tcp};
use bowline_io::ws;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use toy::{ClientToy, Heard, Server, Told};

type Plain = WebSocketStream<MaybeTlsStream<TcpStream>>;

const PATIENCE: Duration = Duration::from_secs(20);

/// A client that is not ours.
async fn plain(server: &Server) -> Plain {
    let url = format!("ws://{}/ws", server.address);
    let (socket, _) = tokio_tungstenite::connect_async(url)
        .await
        .expect("the handshake succeeds");
    socket
}

async fn greeted(server: &mut Server) -> (Plain, toy::Accepted) {
    let mut socket = plain(server).await;
    socket
        .send(Message::text("hello"))
        .await
        .expect("it is open");
    let accepted = server.next_accepted().await;
    (socket, accepted)
}

async fn receive(socket: &mut Plain) -> Message {
    within(socket.next())
        .await
        .expect("it is open")
        .expect("it is whole")
}

async fn receive_close(socket: &mut Plain) -> CloseFrame {
    loop {
        match receive(socket).await {
            Message::Close(Some(frame)) => return frame,
            Message::Close(None) => panic!("a close without a code"),
            _ => {}
        }
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it happens")
}

#[tokio::test]
async fn texts_go_both_ways_and_what_was_sent_is_counted_to_the_byte() {
    let mut server = Server::start().await;
    let (mut socket, mut accepted) = greeted(&mut server).await;
    let mut bytes = 0;
    for len in [0, 1, 125, 126, 65_535, 65_536, FRAME_BYTES] {
        let text = "x".repeat(len);
        socket.send(Message::text(&text)).await.expect("it is open");
        assert_eq!(accepted.next().await, Told::Frame(text.clone()));
        accepted.commands.send(Bytes::from(text.clone()));
        assert_eq!(receive(&mut socket).await, Message::text(text));
        bytes += len as u64;
        accepted.await_sent(bytes).await;
    }
    // What the link says by itself does not count.
    socket.send(Message::text("?")).await.expect("it is open");
    assert_eq!(receive(&mut socket).await, Message::text("!"));
    socket
        .send(Message::text("done"))
        .await
        .expect("it is open");
    assert_eq!(accepted.next().await, Told::Frame("done".into()));
    assert_eq!(accepted.sent(), bytes);
}

#[tokio::test]
async fn a_message_too_long_is_closed_1009_before_and_after_the_handshake() {
    let mut server = Server::start().await;
    let mut stranger = plain(&server).await;
    let long = "x".repeat(HELLO_FRAME_BYTES + 1);
    stranger
        .send(Message::text(long))
        .await
        .expect("it is open");
    assert_eq!(u16::from(receive_close(&mut stranger).await.code), 1009);

    let (socket, mut accepted) = greeted(&mut server).await;
    // The close arrives although we are still writing.
    let (mut write, mut read) = socket.split();
    let long = "x".repeat(4 * FRAME_BYTES);
    let writing = tokio::spawn(async move { write.send(Message::text(long)).await });
    let close = within(async {
        loop {
            match read.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return frame,
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(u16::from(close.await.code), 1009);
    assert_eq!(accepted.next().await, Told::Closed);
    writing.abort();
}

#[tokio::test]
async fn a_peer_that_stops_reading_holds_up_nobody_else() {
    const FRAMES: usize = 64;
    let mut server = Server::start().await;
    let (mut deaf, mut to_deaf) = greeted(&mut server).await;
    let (mut other, mut to_other) = greeted(&mut server).await;
    let frame = Bytes::from("x".repeat(256 * 1024));
    for _ in 0..FRAMES {
        // Never waits.
        to_deaf.commands.send(frame.clone());
    }
    for n in 0..100 {
        let text = n.to_string();
        other.send(Message::text(&text)).await.expect("it is open");
        assert_eq!(to_other.next().await, Told::Frame(text.clone()));
        to_other.commands.send(Bytes::from(text.clone()));
        assert_eq!(receive(&mut other).await, Message::text(text));
    }
    let total = (FRAMES * frame.len()) as u64;
    assert!(to_deaf.sent() < total, "the kernel took 16 MiB unread");
    // Its own frames are still heard: only what goes to it waits.
    deaf.send(Message::text("still here"))
        .await
        .expect("it is open");
    assert_eq!(to_deaf.next().await, Told::Frame("still here".into()));
    for _ in 0..FRAMES {
        assert_eq!(receive(&mut deaf).await.len(), frame.len());
    }
    to_deaf.await_sent(total).await;
}

#[tokio::test]
async fn a_close_comes_behind_what_was_sent_before_it() {
    let mut server = Server::start().await;
    let (mut socket, mut accepted) = greeted(&mut server).await;
    for n in 0..100 {
        accepted.commands.send(Bytes::from(n.to_string()));
    }
    accepted.commands.close(Close::session_replaced());
    // Behind a close nothing is sent.
    accepted.commands.send(Bytes::from_static(b"late"));
    for n in 0..100 {
        assert_eq!(receive(&mut socket).await, Message::text(n.to_string()));
    }
    let close = receive_close(&mut socket).await;
    assert_eq!(u16::from(close.code), 1000);
    assert_eq!(close.reason.as_str(), "session_replaced");
    assert_eq!(accepted.next().await, Told::Closed);
    let end = within(socket.next()).await;
    assert!(
        matches!(end, None | Some(Err(Error::ConnectionClosed))),
        "{end:?}"
    );
    accepted.ended().await;
}

#[tokio::test]
async fn the_closing_handshake_with_one_who_reads_nothing_is_bounded() {
    let mut server = Server::start().await;
    let (_deaf, mut accepted) = greeted(&mut server).await;
    for _ in 0..64 {
        let frame = Bytes::from("x".repeat(256 * 1024));
        accepted.commands.send(frame);
    }
    let begun = tokio::time::Instant::now();
    accepted.commands.close(Close::slow_consumer());
    // The machine hears of it at once, not when the handshake is over.
    assert_eq!(accepted.next().await, Told::Closed);
    assert!(begun.elapsed() < ws::CLOSE_WITHIN);
    accepted.ended().await;
    assert!(begun.elapsed() < 3 * ws::CLOSE_WITHIN);
}

#[tokio::test]
async fn while_paused_nothing_is_read_and_nothing_is_lost() {
    let mut server = Server::start().await;
    let (mut socket, mut accepted) = greeted(&mut server).await;
    accepted.commands.pause();
    // The pause is in force once what was sent behind it has come out.
    accepted.commands.send(Bytes::from_static(b"paused"));
    assert_eq!(receive(&mut socket).await, Message::text("paused"));
    for n in 0..10 {
        socket
            .send(Message::text(n.to_string()))
            .await
            .expect("it is open");
    }
    accepted.commands.send(Bytes::from_static(b"marker"));
    assert_eq!(receive(&mut socket).await, Message::text("marker"));
    assert_eq!(accepted.try_next(), None);
    accepted.commands.resume();
    for n in 0..10 {
        assert_eq!(accepted.next().await, Told::Frame(n.to_string()));
    }
}

#[tokio::test]
async fn a_ping_is_reported_when_it_left_and_its_pong_is_a_sign_of_life() {
    let mut server = Server::start().await;
    let (mut socket, mut accepted) = greeted(&mut server).await;
    socket
        .send(Message::text("ping me"))
        .await
        .expect("it is open");
    assert_eq!(receive(&mut socket).await, Message::Ping(Bytes::new()));
    // Reading it has queued the pong; this flushes it.
    socket.flush().await.expect("it is open");
    assert_eq!(accepted.next().await, Told::PingSent);
    assert_eq!(accepted.next().await, Told::Alive);
    // Theirs is answered.
    socket
        .send(Message::Ping(Bytes::from_static(b"17")))
        .await
        .expect("it is open");
    assert_eq!(
        receive(&mut socket).await,
        Message::Pong(Bytes::from_static(b"17"))
    );
    assert_eq!(accepted.next().await, Told::Alive);
}

#[tokio::test]
async fn a_socket_that_vanishes_is_closed_once() {
    let mut server = Server::start().await;
    let (socket, mut accepted) = greeted(&mut server).await;
    drop(socket);
    assert_eq!(accepted.next().await, Told::Closed);
    accepted.ended().await;
    assert_eq!(accepted.try_next(), None);
}

#[tokio::test]
async fn one_that_never_said_hello_is_nobody() {
    let mut server = Server::start().await;
    drop(plain(&server).await);
    let (_socket, accepted) = greeted(&mut server).await;
    // The first that the machine hears of is the second connection.
    assert_eq!(accepted.hellos(), 1);
    assert_eq!(server.accepted_so_far(), 1);
}

#[tokio::test]
async fn http_is_served_beside_the_sockets() {
    let mut server = Server::start().await;
    let (_socket, _accepted) = greeted(&mut server).await;
    let target = Target::Tcp(server.address.to_string());
    let get = |path| {
        http::call(
            &target,
            hyper::Method::GET,
            path,
            &[],
            Bytes::new(),
            1024,
            PATIENCE,
        )
    };
    let answered = get("/healthz").await.expect("it answers");
    assert_eq!(answered.status, 200);
    assert_eq!(&answered.body[..], br#"{"ok":true}"#);
    // Not a handshake.
    assert_eq!(get("/ws").await.expect("it answers").status, 426);
}

#[tokio::test]
async fn our_two_ends_understand_each_other() {
    let mut server = Server::start().await;
    let mut client = ClientToy::dial(&format!("ws://{}/ws", server.address));
    let mut accepted = server.next_accepted().await;
    accepted.commands.send(Bytes::from_static(b"welcome"));
    assert_eq!(client.next().await, Heard::Text("welcome".into()));
    client.commands.send(Bytes::from_static(b"from the host"));
    assert_eq!(accepted.next().await, Told::Frame("from the host".into()));
    accepted.commands.close(Close::slow_consumer());
    assert_eq!(
        client.next().await,
        Heard::Down(Down::Closed(Close::slow_consumer()))
    );
    client.ended().await;
    assert_eq!(client.sent(), "from the host".len() as u64);
}

#[tokio::test]
async fn a_hangup_of_the_host_travels_with_its_code() {
    let mut server = Server::start().await;
    let mut client = ClientToy::dial(&format!("ws://{}/ws", server.address));
    let mut accepted = server.next_accepted().await;
    client.commands.send(Bytes::from_static(b"bye"));
    let close = Close::new(Close::NORMAL, "stopping");
    client.commands.close(close.clone());
    assert_eq!(client.next().await, Heard::Down(Down::Closed(close)));
    assert_eq!(accepted.next().await, Told::Frame("bye".into()));
    assert_eq!(accepted.next().await, Told::Closed);
    client.ended().await;
}

#[tokio::test]
async fn a_dial_that_fails_says_why() {
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        listener.local_addr().expect("it is bound")
    };
    let mut client = ClientToy::dial(&format!("ws://{closed}/ws"));
    let Heard::Down(Down::DialFailed { detail }) = client.next().await else {
        panic!("there is nobody to connect to");
    };
    assert!(detail.contains(&closed.to_string()), "{detail}");

    let mut client = ClientToy::dial("wss://127.0.0.1:1/ws");
    let Heard::Down(Down::DialFailed { detail }) = client.next().await else {
        panic!("TLS is not spoken");
    };
    assert!(detail.contains("TLS"), "{detail}");
    client.ended().await;

    let server = Server::start().await;
    let mut client = ClientToy::dial(&format!("ws://{}/healthz", server.address));
    let Heard::Down(Down::DialFailed { detail }) = client.next().await else {
        panic!("it does not speak WebSocket there");
    };
    assert!(detail.contains("200"), "{detail}");
}

#[tokio::test]
async fn a_dial_that_hangs_is_ended_by_its_link() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    let mut client =
        ClientToy::dial_within(&format!("ws://{address}/ws"), Duration::from_millis(50));
    let (_accepted, _) = within(silent.accept()).await.expect("it connects");
    assert_eq!(
        client.next().await,
        Heard::Down(Down::DialFailed {
            detail: "no answer".into()
        })
    );
    client.ended().await;
}

#[tokio::test]
async fn frames_that_come_with_the_handshake_are_not_lost() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let mut client = ClientToy::dial(&format!("ws://{address}/ws"));
    let (mut stream, _) = within(listener.accept()).await.expect("it connects");
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.expect("it asks"));
    }
    let request = String::from_utf8(request).expect("it is text");
    let key = request
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("sec-websocket-key")
                .then_some(value)
        })
        .expect("it brings a key");
    let accept = derive_accept_key(key.as_bytes());
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes();
    answer.extend_from_slice(b"\x81\x05early");
    stream.write_all(&answer).await.expect("it reads");
    assert_eq!(client.next().await, Heard::Text("early".into()));
}

#[tokio::test]
async fn a_client_whose_headers_never_end_is_cut_off() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::start_with(http::ServerConfig {
        headers_within: Duration::from_millis(100),
        ..http::ServerConfig::default()
    })
    .await;
    let mut stream = Tcp
        .connect(server.address.to_string())
        .await
        .expect("it listens");
    stream
        .write_all(b"GET /ws HTTP/1.1\r\nHost:")
        .await
        .expect("it reads");
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest))
        .await
        .expect("it is closed");
}
