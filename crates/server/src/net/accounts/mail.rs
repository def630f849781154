//! Mails to people: over SMTP, or into the server's own output where somebody develops.

use std::time::Duration;

use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
    transport::smtp::authentication::Credentials,
};
use syncline_core::config::ServerConfig;
use syncline_store::accounts::Purpose;
use tokio::sync::Semaphore;

/// One mail may take so long.
const SEND_MAX: Duration = Duration::from_secs(30);
/// Mails that are on their way at once; more are not sent, and the log says so.
const SENDING_MAX: usize = 100;

/// Sends mails.
pub(crate) struct Mailer {
    way: Way,
    /// Where links lead; `None`: mails have a code to be typed in.
    app: Option<String>,
    sending: Semaphore,
}

enum Way {
    Smtp(Box<AsyncSmtpTransport<Tokio1Executor>>, Mailbox),
    /// Into the log.
    Print,
    /// There is no way.
    None,
}

impl std::fmt::Debug for Mailer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.way {
            Way::Smtp(..) => "Mailer(smtp)",
            Way::Print => "Mailer(print)",
            Way::None => "Mailer(none)",
        })
    }
}

/// What a mail says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Letter {
    Ticket(Purpose, String),
    /// Somebody signed up with an address that has an account.
    AlreadyThere,
    PasswordChanged,
}

impl Mailer {
    /// As configured; with `dev`, mails that have no other way are printed.
    pub(crate) fn new(config: &ServerConfig, dev: bool) -> Result<Self, String> {
        let way = match &config.smtp {
            Some(url) => smtp(url, config)?,
            None if dev => Way::Print,
            None => Way::None,
        };
        Ok(Self {
            way,
            app: config.app_url.clone(),
            sending: Semaphore::new(SENDING_MAX),
        })
    }

    /// Whether mails arrive anywhere.
    pub(crate) fn can_send(&self) -> bool {
        !matches!(self.way, Way::None)
    }

    /// Sends `letter`; what goes wrong stands in the log, without the letter.
    pub(crate) async fn send(&self, email: &str, letter: &Letter) {
        let (subject, text) = written(letter, self.app.as_deref());
        let (transport, from) = match &self.way {
            Way::Smtp(transport, from) => (transport, from),
            Way::Print => {
                tracing::info!("mail to {email}: {subject}\n\n{text}");
                return;
            }
            Way::None => return,
        };
        let Ok(_place) = self.sending.try_acquire() else {
            tracing::warn!("a mail was not sent: {SENDING_MAX} are on their way already");
            return;
        };
        let Ok(to) = email.parse::<Address>() else {
            return;
        };
        let message = Message::builder()
            .from(from.clone())
            .to(Mailbox::new(None, to))
            .subject(subject)
            .header(ContentType::TEXT_PLAIN)
            .body(text);
        let message = match message {
            Ok(message) => message,
            Err(error) => return tracing::warn!(%error, "a mail could not be written"),
        };
        match tokio::time::timeout(SEND_MAX, transport.send(message)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a mail could not be sent"),
            Err(_) => tracing::warn!("a mail could not be sent: the mail server does not answer"),
        }
    }
}

fn smtp(url: &str, config: &ServerConfig) -> Result<Way, String> {
    let bad = |why: &str| format!("server.smtp: {why}; write smtps://USER@HOST or smtp://HOST:25");
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| bad("it has no scheme"))?;
    let (user, authority) = match rest.rsplit_once('@') {
        Some((user, authority)) => (Some(user.replace("%40", "@")), authority),
        None => (None, rest),
    };
    let authority = authority.trim_end_matches('/');
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => {
            let port = port.parse::<u16>().map_err(|_| bad("its port is none"))?;
            (host, Some(port))
        }
        None => (authority, None),
    };
    let is_here = matches!(host, "localhost" | "127.0.0.1");
    let builder = match scheme {
        "smtps" => AsyncSmtpTransport::<Tokio1Executor>::relay(host),
        // In clear only on this machine.
        "smtp" if is_here => Ok(AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(
            host,
        )),
        "smtp" => AsyncSmtpTransport::<Tokio1Executor>::starttls_relay(host),
        _ => return Err(bad("its scheme is none")),
    };
    let mut builder = builder.map_err(|error| bad(&error.to_string()))?;
    builder = builder.timeout(Some(SEND_MAX));
    if let Some(port) = port {
        builder = builder.port(port);
    }
    if let Some(user) = user {
        let file = config
            .smtp_password_file
            .as_ref()
            .ok_or_else(|| bad("there is a user and no server.smtp_password_file"))?;
        let password = std::fs::read_to_string(file)
            .map_err(|error| format!("server.smtp_password_file {file}: {error}"))?;
        let password = password.trim_end_matches(['\r', '\n']).to_owned();
        builder = builder.credentials(Credentials::new(user, password));
    }
    let from = config
        .mail_from
        .as_ref()
        .ok_or("server.mail_from is missing: write \"App <no-reply@example.com>\"")?;
    let from = from
        .parse::<Mailbox>()
        .map_err(|error| format!("server.mail_from: {error}"))?;
    Ok(Way::Smtp(Box::new(builder.build()), from))
}

/// Subject and text; nothing that a stranger chose is in either.
fn written(letter: &Letter, app: Option<&str>) -> (&'static str, String) {
    let way = |name: &str, code: &str| match app {
        Some(app) => {
            let sign = if app.contains('?') { '&' } else { '?' };
            format!("{app}{sign}{name}={code}")
        }
        None => format!("Code: {code}"),
    };
    match letter {
        Letter::Ticket(Purpose::Verify, code) => (
            "Confirm your e-mail address",
            format!(
                "Confirm that this address is yours:\n\n{}\n\nIt is good once, for 30 minutes. If \
                 you did not sign up, do nothing.\n",
                way("syncline_verify", code)
            ),
        ),
        Letter::Ticket(Purpose::Reset, code) => (
            "Choose another password",
            format!(
                "Choose another password here:\n\n{}\n\nIt is good once, for 30 minutes. If you \
                 did not ask for it, do nothing: your password is as it was.\n",
                way("syncline_reset", code)
            ),
        ),
        Letter::AlreadyThere => (
            "You have an account already",
            "Somebody, probably you, wanted to sign up with this address, which has an account. \
             Sign in with it, or ask for another password. If it was not you, do nothing.\n"
                .into(),
        ),
        Letter::PasswordChanged => (
            "Your password was changed",
            "The password of your account was changed, and every other login was ended. If it was \
             not you, ask for another password at once.\n"
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ac9_mails_have_a_link_into_the_app_or_a_code() {
        let letter = Letter::Ticket(Purpose::Reset, "abc".into());
        let text = |app| written(&letter, app).1;
        assert!(text(None).contains("\n\nCode: abc\n\n"));
        assert!(text(Some("https://a.test/x")).contains("https://a.test/x?syncline_reset=abc\n"));
        assert!(text(Some("https://a.test/?x=1")).contains("/?x=1&syncline_reset=abc\n"));
    }

    #[test]
    fn ac9_a_mail_server_that_cannot_be_used_is_told_with_what_to_write() {
        let config = |smtp: &str| ServerConfig {
            smtp: Some(smtp.into()),
            mail_from: Some("App <app@example.com>".into()),
            ..ServerConfig::default()
        };
        for bad in [
            "mail.example.com",
            "http://mail.example.com",
            "smtp://h:x",
            "smtps://u@h",
        ] {
            let error = Mailer::new(&config(bad), false).expect_err(bad);
            assert!(error.contains("smtp"), "{error}");
        }
        assert!(Mailer::new(&config("smtp://localhost:2525"), false).is_ok());
        assert!(
            !Mailer::new(&ServerConfig::default(), false)
                .unwrap()
                .can_send()
        );
        assert!(
            Mailer::new(&ServerConfig::default(), true)
                .unwrap()
                .can_send()
        );
    }
}
