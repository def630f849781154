//! `syncline login`, `logout` and `whoami`: an account of a server, on this machine.

use serde_json::json;
use syncline::{
    AccountError, Accounts, SignUp, User, blocking,
    engine::{self, Api, ClientError, Connection, Token},
};

use super::{connection_if_given, runtime, warn_in_clear};
use crate::{
    args::{Login, Logout, ServerArgs},
    exit::{Exit, Failure},
    output::Output,
    prompt,
};

pub(crate) fn login(args: &Login, output: &Output) -> anyhow::Result<Exit> {
    let accounts = Accounts::new(&server(args.server.as_deref())?)?;
    let to = Connection::new(accounts.url(), Token::new(""))?;
    warn_in_clear(&to, args.allow_http, output);
    let email = match &args.email {
        Some(email) => email.trim().to_owned(),
        None => known_or_asked(&accounts)?,
    };
    let password = if args.password_stdin {
        prompt::password_of_stdin()?
    } else if !prompt::is_possible() {
        let sentence = "there is no terminal to ask for the password: --password-stdin takes it \
                        from standard input";
        return Err(Failure::new(Exit::Usage, sentence).into());
    } else if args.sign_up {
        twice(&email)?
    } else {
        prompt::password(&format!("Password of {email}: "))?
    };
    let login = if args.sign_up {
        match blocking::wait(accounts.sign_up(&email, &password))? {
            SignUp::SignedIn(login) => login,
            SignUp::Mailed => {
                let sentence = format!(
                    "a mail is on its way to {email}: follow its link, then `syncline login`"
                );
                let object = json!({ "type": "signed_up", "url": accounts.url(), "email": email });
                output.result(&sentence, &object);
                return Ok(Exit::Done);
            }
        }
    } else {
        blocking::wait(accounts.sign_in(&email, &password))?
    };
    let user = login.user();
    output.result(
        &format!("signed in at {} as {}", login.url(), user.email),
        &json!({ "type": "signed_in", "url": login.url(), "user": user.id, "email": user.email }),
    );
    for variable in ["SYNCLINE_TOKEN", "SYNCLINE_TOKEN_FILE"] {
        if std::env::var_os(variable).is_some_and(|value| !value.is_empty()) {
            output.note(&format!(
                "{variable} is set: commands take that token instead"
            ));
        }
    }
    Ok(Exit::Done)
}

/// The server that was given, or that of the last login.
fn server(given: Option<&str>) -> Result<String, ClientError> {
    match given {
        Some(url) => Ok(url.to_owned()),
        None => {
            let last = engine::last_login()?;
            last.map(|login| login.url().to_owned())
                .ok_or(ClientError::NoServer)
        }
    }
}

/// Who was signed in there last: a login that has ended is known until another begins.
fn known_or_asked(accounts: &Accounts) -> anyhow::Result<String> {
    if let Some(login) = accounts.login()? {
        return Ok(login.user().email);
    }
    if !prompt::is_possible() {
        let sentence = "whose account? `syncline login EMAIL`";
        return Err(Failure::new(Exit::Usage, sentence).into());
    }
    prompt::line("E-mail address: ")
}

fn twice(email: &str) -> anyhow::Result<String> {
    let first = prompt::password(&format!("Password for {email}, 12 characters or more: "))?;
    if prompt::password("The same again: ")? != first {
        return Err(Failure::new(Exit::Usage, "these were two different passwords").into());
    }
    Ok(first)
}

pub(crate) fn logout(args: &Logout, output: &Output) -> anyhow::Result<Exit> {
    let found = match &args.server {
        Some(url) => engine::login_at(url)?,
        None => engine::last_login()?,
    };
    let login = found.ok_or_else(|| nobody(args.server.as_deref()))?;
    let ended = if args.everywhere {
        blocking::wait(login.sign_out_everywhere()).map(|()| true)
    } else {
        match blocking::wait(login.sign_out()) {
            Err(AccountError::Unreachable(reason)) => {
                output.note(&format!(
                    "{reason}; the login is gone from this machine, and ends at the server when \
                     it was not used for 30 days"
                ));
                Ok(false)
            }
            ended => ended.map(|()| true),
        }
    };
    let user = login.user();
    let everywhere = if args.everywhere { " everywhere" } else { "" };
    let object = json!({
        "type": "signed_out", "url": login.url(), "user": user.id, "email": user.email,
        "everywhere": args.everywhere, "reached": ended?,
    });
    let sentence = format!(
        "{} is signed out of {}{everywhere}",
        user.email,
        login.url()
    );
    output.result(&sentence, &object);
    Ok(Exit::Done)
}

fn nobody(url: Option<&str>) -> ClientError {
    let at = url.map_or_else(String::new, |url| format!(" at {url}"));
    ClientError::SignedOut {
        message: format!("nobody is signed in{at}: `syncline login --server URL EMAIL`"),
    }
}

pub(crate) fn whoami(args: &ServerArgs, output: &Output) -> anyhow::Result<Exit> {
    let given = match connection_if_given(args, output) {
        Err(ClientError::NoToken) => return Err(nobody(args.server.as_deref()).into()),
        given => given?,
    };
    let connection = given.ok_or_else(|| nobody(None))?;
    let kept = || -> Result<Option<User>, ClientError> {
        let login = engine::login_at(&connection.url)?;
        let login = login.filter(|_| connection.is_login());
        Ok(login.map(|login| login.user()))
    };
    let api = Api::new(&connection)?;
    let (user, reached) = match runtime()?.block_on(api.user()) {
        Ok(user) => (user, true),
        Err(error) if error.is_retryable() => match kept()? {
            Some(user) => {
                output.note(&format!("{error}; who was signed in last:"));
                (user, false)
            }
            None => return Err(error.into()),
        },
        Err(error) => return Err(error.into()),
    };
    let name = if user.email.is_empty() {
        &user.id
    } else {
        &user.email
    };
    let confirmed = match (user.email.is_empty(), user.email_verified) {
        (false, false) => ", an address that was not confirmed",
        (true, _) | (false, true) => "",
    };
    output.result(
        &format!("{name} at {}{confirmed}", connection.url),
        &json!({
            "type": "whoami", "url": connection.url, "user": user.id, "email": user.email,
            "email_verified": user.email_verified, "claims": user.claims, "reached": reached,
        }),
    );
    Ok(Exit::Done)
}
