//! Accounts that a server keeps, and who is signed in on this machine.

use napi_derive::napi;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use syncline::{AccountError, Accounts, SignUp, User};

use crate::failure::{Failure, guarded};

/// A call with its arguments; `call` names it.
#[derive(Deserialize)]
#[serde(tag = "call", rename_all = "camelCase")]
enum AccountCall {
    SignUp {
        email: String,
        password: String,
    },
    SignIn {
        email: String,
        password: String,
    },
    /// Who signed in here; nobody is asked.
    Whoami,
    SignOut {
        everywhere: bool,
    },
    ForgotPassword {
        email: String,
    },
    ResetPassword {
        code: String,
        password: String,
    },
    ChangePassword {
        current: String,
        password: String,
    },
    VerifyEmail {
        code: String,
    },
}

/// Asks something of the accounts of the server at `url`. Arguments and answers are JSON.
#[napi]
pub(crate) async fn account(url: String, call: String) -> napi::Result<String> {
    guarded(async {
        let call = serde_json::from_str(&call).map_err(|error| Failure::call(&error))?;
        let accounts = Accounts::new(&url)?;
        Ok(answer(&accounts, call).await?.to_string())
    })
    .await
}

async fn answer(accounts: &Accounts, call: AccountCall) -> Result<Json, Failure> {
    match call {
        AccountCall::SignUp { email, password } => {
            return Ok(match accounts.sign_up(&email, &password).await? {
                SignUp::Mailed => Json::Null,
                SignUp::SignedIn(login) => user(&login.user()),
            });
        }
        AccountCall::SignIn { email, password } => {
            return Ok(user(&accounts.sign_in(&email, &password).await?.user()));
        }
        AccountCall::Whoami => {
            let login = accounts.login()?;
            return Ok(login.map_or(Json::Null, |login| user(&login.user())));
        }
        AccountCall::SignOut { everywhere } => match accounts.login()? {
            Some(login) if everywhere => login.sign_out_everywhere().await?,
            Some(login) => login.sign_out().await?,
            None => {}
        },
        AccountCall::ForgotPassword { email } => accounts.forgot_password(&email).await?,
        AccountCall::ResetPassword { code, password } => {
            accounts.reset_password(&code, &password).await?;
        }
        AccountCall::ChangePassword { current, password } => {
            let login = accounts.login()?.ok_or_else(|| {
                AccountError::SignedOut(format!("nobody is signed in at {}", accounts.url()))
            })?;
            login.change_password(&current, &password).await?;
        }
        AccountCall::VerifyEmail { code } => accounts.verify_email(&code).await?,
    }
    Ok(Json::Null)
}

fn user(user: &User) -> Json {
    json!({
        "id": user.id,
        "email": user.email,
        "emailVerified": user.email_verified,
        "claims": user.claims,
    })
}
