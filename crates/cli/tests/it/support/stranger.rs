//! Servers that are not ours, or not of our time.

use std::{
    io::{Read, Write},
    net::TcpListener,
};

use syncline_core::wire::{Refusal, ServerMessage, code, encode_server};
use tokio_tungstenite::tungstenite::{
    Message, accept_hdr,
    handshake::server::{Request, Response},
};

/// Listens until the test's process ends; its address.
fn listen(serve: impl Fn(std::net::TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            serve(stream);
        }
    });
    format!("http://{address}")
}

/// A web server that has a page for everything.
pub(crate) fn web_site() -> String {
    listen(|mut stream| {
        let mut buffer = [0; 4096];
        let _read = stream.read(&mut buffer);
        let page = "<html>Welcome to nginx!</html>";
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}",
            page.len()
        );
        let _gone = stream.write_all(answer.as_bytes());
    })
}

/// A server that answers every request with this refusal and no hope.
pub(crate) fn server_that_refuses(code: &str, sentence: &str) -> String {
    let body = serde_json::json!({ "code": code, "message": sentence, "retry": false }).to_string();
    listen(move |mut stream| {
        let mut buffer = [0; 4096];
        let _read = stream.read(&mut buffer);
        let answer = format!(
            "HTTP/1.1 409 Conflict\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let _gone = stream.write_all(answer.as_bytes());
    })
}

/// A Syncline server that speaks another version of the protocol.
pub(crate) fn server_of_protocol(theirs: u32) -> String {
    listen(move |stream| {
        #[expect(
            clippy::result_large_err,
            reason = "the shape that the handshake wants"
        )]
        let with_protocol = |request: &Request, mut response: Response| {
            if let Some(protocol) = request.headers().get("sec-websocket-protocol") {
                let headers = response.headers_mut();
                headers.insert("sec-websocket-protocol", protocol.clone());
            }
            Ok(response)
        };
        let Ok(mut socket) = accept_hdr(stream, with_protocol) else {
            return;
        };
        let _hello = socket.read();
        let refusal = Refusal {
            code: code::PROTOCOL.into(),
            message: format!(
                "this server speaks protocol {theirs}, the client another: upgrade the older of the two"
            ),
            retry: false,
            retry_after_ms: None,
            change: None,
            fatal: true,
        };
        let frame = encode_server(&ServerMessage::Refusal(refusal));
        let _gone = socket.send(Message::Binary(frame.into()));
        let _closed = socket.close(None);
        while socket.read().is_ok() {}
    })
}
