//! An echo over our WebSocket layer, on a port of loopback: what a conformance suite is run against.
//! `docs/TESTING.md` says how.

use bowline_io::clock::SystemClock;
use bowline_io::http::{self, Body, ConnInfo, ServerConfig};
use bowline_io::ws;
use bowline_io::ws::echo::run_echo;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let port: u16 = match std::env::args().nth(1).map(|port| port.parse()) {
        Some(Ok(port)) => port,
        _ => {
            eprintln!("usage: echo PORT");
            std::process::exit(2);
        }
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("echoing at ws://{}", listener.local_addr()?);
    let never = std::future::pending::<()>();
    http::serve(
        listener,
        SystemClock,
        ServerConfig::default(),
        answer,
        never,
    )
    .await;
    Ok(())
}

async fn answer(mut request: Request<Incoming>, info: ConnInfo) -> Response<Body> {
    let (response, upgrade) = match ws::upgrade(&mut request) {
        Ok(upgraded) => upgraded,
        Err(error) => {
            let said = serde_json::json!({ "error": error.to_string() });
            return http::json(StatusCode::UPGRADE_REQUIRED, &said);
        }
    };
    info.release_slot();
    tokio::spawn(async move {
        if let Err(error) = run_echo::<TcpStream>(upgrade, SystemClock).await {
            eprintln!("the client went before its upgrade: {error}");
        }
    });
    response
}
