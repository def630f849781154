//! The manager.

use std::sync::{Arc, Mutex, PoisonError};

use napi_derive::napi;
use serde_json::Value as Json;
use syncline::{OperationError, SyncManager};

use crate::{
    call::Call,
    cell,
    claim::Claim,
    conflict::Scripted,
    events::Pump,
    failure::{Failure, guarded, guarded_now},
    js::{self, Ask, Tell},
    live::Live,
    locks,
    run::Run,
    settings::Settings,
    told,
};

/// A sync manager. Arguments and answers are JSON.
#[napi]
pub struct Manager {
    manager: SyncManager,
    pump: Pump,
    claim: Mutex<Option<Claim>>,
}

impl Manager {
    /// Others may have the file now.
    fn let_go(&self) {
        let claim = self
            .claim
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(claim);
    }
}

/// Opens the file at `path`; `on_event` is told of everything that happens, `tokens` asked for
/// tokens where the settings have none.
#[napi]
pub(crate) async fn open(
    path: String,
    settings: String,
    on_event: Tell,
    tokens: Option<Ask>,
) -> napi::Result<Manager> {
    guarded(async {
        locks::keep_apart()?;
        let config = Settings::read(&settings)?.config(tokens)?;
        let claim = Claim::of(&path)?;
        let manager = SyncManager::open(path, config).await?;
        let pump = Pump::start(manager.events(), on_event);
        Ok(Manager {
            manager,
            pump,
            claim: Mutex::new(Some(claim)),
        })
    })
    .await
}

#[napi]
impl Manager {
    /// Asks something ([`Call`]).
    #[napi]
    pub async fn call(&self, call: String) -> napi::Result<String> {
        guarded(async {
            let call: Call = serde_json::from_str(&call).map_err(|error| Failure::call(&error))?;
            let is_last = matches!(call, Call::Detach);
            let answer = call.of(&self.manager).await?;
            if is_last {
                self.let_go();
            }
            Ok(answer.to_string())
        })
        .await
    }

    /// Prepares a seed, hydrate or sync.
    #[napi]
    pub fn run(
        &self,
        request: String,
        on_progress: Option<Tell>,
        resolver: Option<Ask>,
    ) -> napi::Result<Run> {
        guarded_now(|| Run::new(self.manager.clone(), &request, on_progress, resolver))
    }

    /// Takes another configuration; `tokens` as in [`open`].
    #[napi]
    pub fn update_config(&self, settings: String, tokens: Option<Ask>) -> napi::Result<()> {
        guarded_now(|| {
            let config = Settings::read(&settings)?.config(tokens)?;
            Ok(self.manager.update_config(|_| config)?)
        })
    }

    /// Whether a session with the server is open.
    #[napi]
    pub fn is_connected(&self) -> bool {
        self.manager.is_connected()
    }

    /// Auto-sync looks for the server now.
    #[napi]
    pub fn foreground(&self) {
        self.manager.foreground();
    }

    /// Waits until everything that has happened by now was told as an event.
    #[napi]
    pub async fn told(&self) -> napi::Result<()> {
        self.pump.told().await;
        Ok(())
    }

    /// Has conflicts of a table decided by `resolver`.
    #[napi]
    pub async fn set_resolver(&self, table: String, resolver: Ask) -> napi::Result<()> {
        guarded(async {
            let resolver = Scripted(Arc::new(resolver));
            Ok(self.manager.set_resolver(table, resolver).await?)
        })
        .await
    }

    /// Says who does operations of a kind. The answer of `handler` is null, or `{ retry }` or
    /// `{ fail }` with the reason.
    #[napi]
    pub async fn register(&self, kind: String, handler: Ask) -> napi::Result<()> {
        guarded(async {
            let handler = Arc::new(handler);
            let queue = self.manager.queue();
            let registered = queue.register(kind, move |operation| {
                let handler = Arc::clone(&handler);
                async move {
                    let operation = told::operation(&operation).to_string();
                    outcome(js::ask(&handler, operation).await)
                }
            });
            Ok(registered.await?)
        })
        .await
    }

    /// Watches a query.
    #[napi]
    pub async fn watch(&self, sql: String, params: String) -> napi::Result<Live> {
        guarded(async {
            let params: Vec<Json> =
                serde_json::from_str(&params).map_err(|error| Failure::call(&error))?;
            let params: Result<Vec<_>, Failure> = params.iter().map(cell::from_json).collect();
            Ok(Live::new(self.manager.watch(sql, params?).await?))
        })
        .await
    }

    /// Ends the engine.
    #[napi]
    pub async fn close(&self) -> napi::Result<()> {
        guarded(async {
            self.manager.close().await;
            self.let_go();
            Ok(())
        })
        .await?;
        self.pump.told().await;
        Ok(())
    }
}

fn outcome(answer: Option<String>) -> Result<(), OperationError> {
    let retry = |why: &str| Err(OperationError::Retry(why.to_owned()));
    let Some(answer) = answer else {
        return retry("the program ended");
    };
    let Ok(answer) = serde_json::from_str::<Json>(&answer) else {
        return retry("the handler's answer cannot be read");
    };
    match (answer["fail"].as_str(), answer["retry"].as_str()) {
        (Some(why), _) => Err(OperationError::Fail(why.to_owned())),
        (None, Some(why)) => retry(why),
        (None, None) => Ok(()),
    }
}
