//! Gets a driver its connection: a token, and a WebSocket if that works, else the exchange.

use std::{pin::Pin, time::Duration};

use super::Driver;
use crate::{
    credentials::Token,
    error::ClientError,
    exchange::Exchange,
    system::now,
    transport::{Transport, WebSocketError},
};

/// WebSocket failures in a row, while HTTP works, before the exchange is taken (spec SE22).
const WEB_SOCKET_FAILURES_MAX: u32 = 3;
/// How long the exchange is used before a WebSocket is tried again.
const EXCHANGE_FOR: Duration = Duration::from_secs(60);

pub(super) type Renewal = Pin<Box<dyn Future<Output = Result<Token, ClientError>>>>;

impl Driver {
    /// A token in place of one that the server did not take, if there is one: once, until it has
    /// taken one again.
    pub(super) async fn another_token(
        &mut self,
        refused: &Token,
    ) -> Result<Option<Token>, ClientError> {
        if std::mem::replace(&mut self.is_token_renewed, true) {
            return Ok(None);
        }
        self.connection.instead_of(refused).await
    }

    /// An open pipe, and with which token.
    pub(super) async fn open(&mut self) -> Result<(Transport, Token), ClientError> {
        let token = self.connection.token().await?;
        match self.open_with(&token).await {
            Err(error) if error.is_unauthorized() => match self.another_token(&token).await? {
                Some(token) => Ok((self.open_with(&token).await?, token)),
                None => Err(error),
            },
            opened => Ok((opened?, token)),
        }
    }

    /// A WebSocket if that works, else the exchange.
    async fn open_with(&mut self, token: &Token) -> Result<Transport, ClientError> {
        if self
            .exchange_until
            .is_some_and(|until| std::time::Instant::now() < until)
        {
            return Ok(Transport::Exchange(Exchange::open(self.api.clone())));
        }
        match Transport::web_socket(&self.connection, token, &self.api).await {
            Ok(transport) => {
                self.web_socket_failures = 0;
                Ok(transport)
            }
            Err(WebSocketError::Refused(error) | WebSocketError::Unreachable(error)) => Err(error),
            Err(WebSocketError::Broken(error)) => {
                self.web_socket_failures += 1;
                let works = self.api.is_alive().await;
                if !works || self.web_socket_failures < WEB_SOCKET_FAILURES_MAX {
                    return Err(if works { self.retryable(error) } else { error });
                }
                tracing::info!(%error, "WebSockets fail here; taking plain HTTP");
                self.exchange_until = Some(std::time::Instant::now() + EXCHANGE_FOR);
                Ok(Transport::Exchange(Exchange::open(self.api.clone())))
            }
        }
    }

    /// The token that follows `token`, when it is time for it.
    pub(super) fn renewal(&self, token: &Token) -> Renewal {
        let (connection, token) = (self.connection.clone(), token.clone());
        Box::pin(async move { connection.next(&token).await })
    }

    /// Does not connect again before it was told to.
    pub(super) fn keep_to(&self, error: &ClientError) {
        if let Some(wait) = error.retry_after() {
            let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            self.replica().connect_not_before(now().plus_millis(wait));
        }
    }

    /// A strange answer from what is a Syncline server: something between us is in the way.
    fn retryable(&self, error: ClientError) -> ClientError {
        if let ClientError::NotASyncline { reason, .. } = error {
            self.unreachable(reason)
        } else {
            error
        }
    }

    pub(super) fn unreachable(&self, reason: String) -> ClientError {
        ClientError::Unreachable {
            url: self.connection.url.clone(),
            reason,
            retry_after: None,
        }
    }
}
