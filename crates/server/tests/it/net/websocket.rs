//! Sessions over WebSockets.

use futures_util::SinkExt;
use syncline_core::wire::{
    ClientMessage, Ping, RowBody, ServerMessage, TokenRenewal, Verdict, code,
};
use tokio_tungstenite::tungstenite::Message;

use super::{Net, changeset, note, now};

#[tokio::test]
async fn se18_what_one_device_pushes_another_hears() {
    let net = Net::start().await;
    let mut phone = net.socket("ada").await;
    let mut laptop = net.socket("ada").await;
    let mut stranger = net.socket("ben").await;
    phone.sync(1).await;
    laptop.sync(2).await;
    stranger.sync(3).await;

    let changes = net.draw("ada", |draw| note(draw, 7)).await;
    phone.push(&changeset(1, 1, changes)).await;
    let version = phone
        .hear_until(|message| match message {
            ServerMessage::PushResult(result) => match &result.verdict {
                Verdict::Accepted(version) => Some(*version),
                Verdict::Refused(refusal) => panic!("{refusal:?}"),
            },
            _ => None,
        })
        .await;
    let row = laptop
        .hear_until(|message| match message {
            ServerMessage::Changes(changes) => {
                let (row, _) = RowBody::decode(&changes.records[0].body).expect("a row");
                Some(row)
            }
            _ => None,
        })
        .await;
    assert_eq!(row.version, version);
    for socket in [&mut phone, &mut laptop] {
        socket
            .hear_until(|message| match message {
                ServerMessage::Checkpoint(c) if c.cursor.version >= version => Some(()),
                _ => None,
            })
            .await;
    }
    // The stranger's next message is the answer to his ping, and nothing of the row.
    let ping = Ping {
        sent: now(),
        now: now(),
    };
    stranger.say(&ClientMessage::Ping(ping)).await;
    assert!(matches!(
        stranger.hear().await,
        Some(ServerMessage::Pong(_))
    ));
}

#[tokio::test]
async fn what_another_program_writes_shows_up() {
    let net = Net::start().await;
    let mut socket = net.socket("ada").await;
    socket.sync(1).await;
    net.elsewhere("INSERT INTO labels (id, name) VALUES ('l1', 'urgent')");
    let row = socket
        .hear_until(|message| match message {
            ServerMessage::Changes(changes) => {
                let (row, _) = RowBody::decode(&changes.records[0].body).expect("a row");
                Some(row)
            }
            _ => None,
        })
        .await;
    assert!(format!("{:?}", row.state).contains("urgent"));
    assert_eq!(row.author, "");
}

#[tokio::test]
async fn wi6_hostile_frames_are_answered_and_closed() {
    let net = Net::start().await;
    let too_long = vec![0; 1024 * 1024 + 1];
    for (frame, expected) in [
        (b"\x00garbage".to_vec(), code::MALFORMED),
        (Vec::new(), code::MALFORMED),
        (too_long, code::TOO_LARGE),
    ] {
        let mut socket = net.socket("ada").await;
        socket.sync(1).await;
        socket.say_bytes(frame).await;
        assert_eq!(socket.refused().await, (expected.to_owned(), Some(1008)));
    }
    // Text is no frame.
    use futures_util::SinkExt;
    let mut socket = net.socket("ada").await;
    let text = Message::Text("{\"hello\": true}".into());
    socket.socket.send(text).await.expect("it is sent");
    assert_eq!(socket.refused().await.0, code::MALFORMED);
}

#[tokio::test]
async fn se23_a_connection_ends_with_its_token_unless_renewed() {
    let net = Net::start().await;
    // The server allows for ten seconds of difference between clocks.
    let short = {
        let end = syncline_core::Timestamp(now().0 - 7_000_000);
        let issued = net.auth.issue("ada", Default::default(), now(), end);
        issued.expect("a token")
    };
    let mut left = net.try_socket(&short).await.expect("still good");
    let mut renewed = net.try_socket(&short).await.expect("still good");
    left.sync(1).await;
    renewed.sync(2).await;
    let token = net.token("ada");
    renewed
        .say(&ClientMessage::Token(TokenRenewal { token }))
        .await;
    assert_eq!(left.refused().await.0, code::UNAUTHORIZED);
    let ping = Ping {
        sent: now(),
        now: now(),
    };
    renewed.say(&ClientMessage::Ping(ping)).await;
    assert!(matches!(renewed.hear().await, Some(ServerMessage::Pong(_))));
}

#[tokio::test]
async fn wi19_pings_without_end_end_the_connection() {
    let net = Net::start().await;
    let mut calm = net.socket("ada").await;
    let mut wild = net.socket("ada").await;
    calm.sync(1).await;
    wild.sync(2).await;
    for _ in 0..50 {
        let ping = Message::Ping(Vec::new().into());
        calm.socket.send(ping).await.expect("it is sent");
    }
    let ping = Ping {
        sent: now(),
        now: now(),
    };
    calm.say(&ClientMessage::Ping(ping)).await;
    assert!(matches!(calm.hear().await, Some(ServerMessage::Pong(_))));

    for _ in 0..10_000 {
        let ping = Message::Ping(Vec::new().into());
        if wild.socket.feed(ping).await.is_err() {
            break;
        }
    }
    // What was on its way when the server closed is lost, and so may be its farewell.
    drop(wild.socket.flush().await);
    assert!(wild.hear().await.is_none());
}
