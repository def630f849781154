//! A sync that was called for.

use std::sync::{Arc, Mutex, PoisonError};

use napi_derive::napi;
use serde::Deserialize;
use syncline::{Interrupt, SyncManager, Tables};

use crate::{
    conflict::Scripted,
    failure::{Failure, guarded},
    js::{self, Ask, Tell},
    settings, told,
};

/// What is to be run.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    operation: Wanted,
    tables: Option<Vec<String>>,
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Wanted {
    Seed,
    Hydrate,
    Sync,
}

struct Work {
    manager: SyncManager,
    request: Request,
    on_progress: Option<Tell>,
    resolver: Option<Ask>,
}

/// A run: `done()` begins it and answers when it has ended, `interrupt()` ends it.
#[napi]
pub struct Run {
    work: Mutex<Option<Work>>,
    interrupt: Interrupt,
}

impl Run {
    pub(crate) fn new(
        manager: SyncManager,
        request: &str,
        on_progress: Option<Tell>,
        resolver: Option<Ask>,
    ) -> Result<Self, Failure> {
        let request = serde_json::from_str(request).map_err(|error| Failure::call(&error))?;
        Ok(Self {
            work: Mutex::new(Some(Work {
                manager,
                request,
                on_progress,
                resolver,
            })),
            interrupt: Interrupt::default(),
        })
    }
}

#[napi]
impl Run {
    /// Ends the run: it fails as `interrupted`.
    #[napi]
    pub fn interrupt(&self) {
        self.interrupt.trigger();
    }

    /// The report, as JSON. To be called once.
    #[napi]
    pub async fn done(&self) -> napi::Result<String> {
        guarded(async {
            let work = self
                .work
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let work = work.ok_or_else(|| Failure::call(&"a run is done once"))?;
            work.run(&self.interrupt).await
        })
        .await
    }
}

impl Work {
    async fn run(self, interrupt: &Interrupt) -> Result<String, Failure> {
        let on_progress = self.on_progress.map(Arc::new);
        let listener = on_progress.clone();
        let told = move |progress| {
            if let Some(listener) = &listener {
                js::tell(listener, told::progress(&progress).to_string());
            }
        };
        let tables: Tables = settings::tables(self.request.tables);
        let mut run = match self.request.operation {
            Wanted::Seed => self.manager.seed(tables, told),
            Wanted::Hydrate => self.manager.hydrate(tables, told),
            Wanted::Sync => self.manager.sync(tables, told),
        }
        .interrupt(interrupt);
        if self.request.dry_run {
            run = run.dry_run();
        }
        if let Some(resolver) = self.resolver {
            run = run.resolver(Scripted(Arc::new(resolver)));
        }
        let result = run.await;
        if let Some(listener) = &on_progress {
            // The report comes after the last progress.
            js::tell_and_wait(listener, "null".to_owned()).await;
        }
        Ok(told::report(&result?).to_string())
    }
}
