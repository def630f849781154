//! A mail server that takes everything.

use std::sync::Arc;

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::{Mutex, mpsc},
};

use super::{Net, SOON, Wish};

pub(super) struct Mailbox {
    port: u16,
    arrived: Arc<Mutex<mpsc::Receiver<String>>>,
}

impl Mailbox {
    pub(super) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
        let port = listener.local_addr().expect("an address").port();
        let (arriving, arrived) = mpsc::channel(100);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(converse(socket, arriving.clone()));
            }
        });
        Self {
            port,
            arrived: Arc::new(Mutex::new(arrived)),
        }
    }

    /// A server that sends its mails here, where anybody signs up.
    pub(super) async fn server(&self, folder: tempfile::TempDir) -> Net {
        let port = self.port;
        Net::start_with(Wish {
            folder: Some(folder),
            server: Box::new(move |server| {
                server.sign_up = true;
                server.smtp = Some(format!("smtp://127.0.0.1:{port}"));
                server.mail_from = Some("App <no-reply@example.com>".into());
                server.app_url = Some("https://app.example.com/account".into());
            }),
            ..Wish::default()
        })
        .await
    }

    /// The next mail, which is for `email`.
    pub(super) async fn next(&self, email: &str) -> String {
        let mut arrived = self.arrived.lock().await;
        let mail = tokio::time::timeout(SOON, arrived.recv()).await;
        let mail = mail.expect("a mail arrives").expect("the mailbox is open");
        assert!(mail.contains(&format!("To: {email}\r\n")), "{mail}");
        // Quoted-printable.
        mail.replace("=\r\n", "").replace("=3D", "=")
    }

    /// What follows `before` in the next mail.
    pub(super) async fn code(&self, email: &str, before: &str) -> String {
        let text = self.next(email).await;
        let (_, rest) = text.split_once(before).expect("a link");
        rest.split_whitespace().next().expect("a code").to_owned()
    }
}

async fn converse(socket: TcpStream, arriving: mpsc::Sender<String>) {
    let (read, mut write) = socket.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut mail: Option<String> = None;
    write.write_all(b"220 here\r\n").await.expect("it reads");
    while let Ok(Some(line)) = lines.next_line().await {
        let answer = match &mut mail {
            Some(text) if line == "." => {
                arriving
                    .send(std::mem::take(text))
                    .await
                    .expect("somebody reads");
                mail = None;
                "250 taken\r\n"
            }
            Some(text) => {
                text.push_str(&line);
                text.push_str("\r\n");
                continue;
            }
            None if line.starts_with("DATA") => {
                mail = Some(String::new());
                "354 go on\r\n"
            }
            None if line.starts_with("QUIT") => "221 bye\r\n",
            None => "250 yes\r\n",
        };
        if write.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
