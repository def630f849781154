//! A proxy that lets plain HTTP through and breaks WebSockets, as some networks do.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Listens until the test's process ends.
pub(crate) struct Proxy {
    pub(crate) url: String,
    refused: Arc<AtomicU64>,
}

impl Proxy {
    /// In front of the server at `port` of this machine.
    pub(crate) fn without_web_sockets(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("an address");
        let refused = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&refused);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let count = Arc::clone(&count);
                std::thread::spawn(move || serve(stream, port, &count));
            }
        });
        Self {
            url: format!("http://{address}"),
            refused,
        }
    }

    /// How many WebSockets were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// One connection: looks at its first request, then passes bytes on.
fn serve(mut client: TcpStream, port: u16, refused: &AtomicU64) {
    let mut head = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match client.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => head.extend_from_slice(&buffer[..n]),
        }
    }
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    if text.contains("upgrade: websocket") {
        refused.fetch_add(1, Ordering::Relaxed);
        let answer = "HTTP/1.1 400 Bad Request\r\ncontent-length: 21\r\nconnection: close\r\n\r\nno upgrades, says IT\n";
        let _gone = client.write_all(answer.as_bytes());
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)) else {
        return;
    };
    if server.write_all(&head).is_err() {
        return;
    }
    let (Ok(from_client), Ok(to_client)) = (client.try_clone(), client.try_clone()) else {
        return;
    };
    let Ok(to_server) = server.try_clone() else {
        return;
    };
    let up = std::thread::spawn(move || pass(from_client, to_server));
    pass(server, to_client);
    let _panicked = up.join();
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let _ended = std::io::copy(&mut from, &mut to);
    let _closed = to.shutdown(Shutdown::Both);
}
