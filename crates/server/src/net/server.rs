//! Starting and stopping.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use parking_lot::{Mutex, RwLock};
use syncline_core::config::ServerConfig;
use syncline_store::Auditor;
use tokio::{
    net::{TcpListener, ToSocketAddrs},
    sync::{Mutex as AsyncMutex, mpsc, watch},
};

use super::{
    Backend, Limits, Options, ServeError, Shared,
    accounts::Accounts,
    acme::Acme,
    committer::{self, Request},
    exchange::Exchanges,
    held::AllHeld,
    http, listen, metrics,
    presence::Presences,
    provider::Provider,
    readers::Readers,
    requests::Requests,
    start::{Started, spawn_committer},
    tickets::Tickets,
    tls::{self, Tls},
};
use crate::Hub;

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    is_encrypted: bool,
    notes: Vec<String>,
    limits: Limits,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
    requests: mpsc::Sender<Request>,
    committing: std::thread::JoinHandle<()>,
    /// Their log has to be written to its end.
    accounts: Option<Arc<Accounts>>,
}

impl Server {
    /// Opens the storage, brings its schema up to date and listens.
    ///
    /// # Errors
    /// [`ServeError`]: nothing listens then.
    pub async fn start<B: Backend>(backend: Arc<B>, options: Options) -> Result<Self, ServeError> {
        Self::start_with(backend, options, Limits::default()).await
    }

    /// As [`Server::start`], with other limits than the usual ones.
    ///
    /// # Errors
    /// [`ServeError`]: nothing listens then.
    pub async fn start_with<B: Backend>(
        backend: Arc<B>,
        options: Options,
        limits: Limits,
    ) -> Result<Self, ServeError> {
        let acme = Acme::new(&options.config.server).map_err(ServeError::Tls)?;
        let tls = match &acme {
            Some(acme) => Some(Tls::awaited(&acme.certificate())),
            None => open_tls(&options.config.server)?,
        };
        let (listener, address) = bind(options.listen, options.dev).await?;
        let admin = match &options.config.server.admin_listen {
            Some(admin) => Some(bind_admin(admin, options.dev).await?),
            None => None,
        };
        let admin_address = admin.as_ref().map(|(_, address)| *address);
        let (requests, queue) = mpsc::channel(committer::QUEUE_MAX);
        let (stop, stopped) = watch::channel(false);
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let committing = spawn_committer(Arc::clone(&backend), &options, queue, ready)?;
        let died = || ServeError::Stopped("the storage thread died".into());
        let Started {
            context,
            notes,
            publish_to,
            rules_since,
            readers,
            accounts,
            access,
        } = is_ready.await.map_err(|_| died())??;
        let metrics_for = if admin.is_some() || options.dev {
            metrics::Readers::Everybody
        } else if address.ip().is_loopback() && options.config.server.trusted_proxies.is_empty() {
            metrics::Readers::ThisMachine
        } else {
            metrics::Readers::Administrators
        };
        let provider = Provider::new(&options.config.server).map_err(ServeError::Accounts)?;
        let accounts = match accounts {
            Some(store) => {
                let config = &options.config.server;
                let opened = Accounts::open(store, context.server, config, options.dev);
                Some(Arc::new(opened.map_err(ServeError::Accounts)?))
            }
            None => None,
        };
        if let Some(accounts) = &accounts {
            accounts.access_changed(context.plan.schema(), &access);
        }
        let audited = accounts.clone();
        let shared = Arc::new(Shared::<B> {
            context: RwLock::new(context),
            config: RwLock::new(options.config),
            adding_tables: AsyncMutex::new(()),
            push_turns: std::array::from_fn(|_| AsyncMutex::new(())),
            hub: Mutex::new(Hub::default()),
            wakers: Mutex::default(),
            news: Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
            sessions: AtomicU64::new(1),
            rules_since: AtomicU64::new(rules_since.0),
            connections: Arc::default(),
            connections_max: options.connections_max,
            user_requests: Requests::default(),
            address_requests: Requests::default(),
            held: Arc::new(AllHeld::new(limits.held_bytes_max)),
            requests: requests.clone(),
            readers: Arc::new(Readers::new(readers)),
            read_turns: Arc::default(),
            auth: options.auth,
            accounts,
            provider,
            dev: options.dev,
            metrics_for,
            remember: options.remember,
            exchanges: Exchanges::default(),
            tickets: Tickets::default(),
            presences: Presences::default(),
            generation: AtomicU64::default(),
            stop: stop.clone(),
            metrics: metrics::Metrics::install(),
        });
        let publisher = Arc::downgrade(&shared);
        let publish: committer::Publish = Box::new(move |news| {
            if let Some(shared) = publisher.upgrade() {
                shared.publish(news);
            }
        });
        let auditor = shared
            .accounts
            .clone()
            .map(|accounts| accounts as Arc<dyn Auditor>);
        publish_to.send((publish, auditor)).map_err(|_| died())?;
        let admin = admin.map(|(listener, _)| {
            let router = http::admin_router(Arc::clone(&shared));
            listen::serve(
                listener,
                router,
                tls.clone(),
                limits.clone(),
                stopped.clone(),
            )
        });
        let is_encrypted = tls.is_some();
        if let Some(tls) = &tls {
            tokio::spawn(tls::watch(Arc::downgrade(tls)));
            if let Some(acme) = acme {
                tokio::spawn(acme.keep(Arc::downgrade(tls)));
            }
        }
        let (mut stop_sessions, woken) = (stopped.clone(), Arc::downgrade(&shared));
        tokio::spawn(async move {
            // A sender that is gone has stopped, too.
            drop(stop_sessions.wait_for(|stop| *stop).await);
            if let Some(shared) = woken.upgrade() {
                shared.wake_all();
            }
        });
        let public = http::serve(listener, shared, tls, limits.clone(), stopped);
        let serving = tokio::spawn(async move {
            match admin {
                Some(admin) => {
                    tokio::join!(public, admin);
                }
                None => public.await,
            }
        });
        Ok(Self {
            address,
            admin_address,
            is_encrypted,
            notes,
            limits,
            stop,
            serving,
            requests,
            committing,
            accounts: audited,
        })
    }

    /// Where it listens, with the port that the system chose for port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Where it listens for operators, if that is a place of its own.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// What starting changed in the schema, a sentence each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Tells every session to come back later, finishes what was accepted, and closes the storage.
    ///
    /// # Errors
    /// [`ServeError::Stopped`] if a part had died before.
    pub async fn stop(self) -> Result<(), ServeError> {
        let Self {
            limits,
            stop,
            mut serving,
            requests,
            committing,
            accounts,
            ..
        } = self;
        stop.send_replace(true);
        let stopped = |what: &dyn std::fmt::Display| ServeError::Stopped(what.to_string());
        // Requests first, sessions then.
        match tokio::time::timeout(2 * limits.goodbye_max, &mut serving).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(stopped(&error)),
            Err(_) => {
                tracing::warn!("some sessions did not end in time and were cut");
                serving.abort();
            }
        }
        // Nobody is left to be answered; a committer that has stopped already is just as well.
        drop(requests.send(Request::Stop).await);
        let joined = tokio::task::spawn_blocking(move || {
            let joined = committing.join();
            if let Some(accounts) = accounts
                && let Err(error) = accounts.finish()
            {
                tracing::warn!(%error, "the end of the audit log could not be written");
            }
            joined
        });
        match tokio::time::timeout(limits.goodbye_max, joined).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(_) => Err(stopped(&"the storage thread panicked")),
            Err(_) => Err(stopped(&"the storage is still busy")),
        }
    }
}

fn open_tls(server: &ServerConfig) -> Result<Option<Arc<Tls>>, ServeError> {
    let (cert, key) = match (&server.tls_cert, &server.tls_key) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        (Some(_), None) => {
            let sentence = "server.tls_cert needs server.tls_key: a file with the private key";
            return Err(ServeError::Tls(sentence.to_owned()));
        }
        (None, Some(_)) => {
            let sentence = "server.tls_key needs server.tls_cert: a file with the certificate";
            return Err(ServeError::Tls(sentence.to_owned()));
        }
    };
    let opened = Tls::open(Path::new(cert), Path::new(key));
    opened.map(Some).map_err(ServeError::Tls)
}

async fn bind(address: SocketAddr, dev: bool) -> Result<(TcpListener, SocketAddr), ServeError> {
    if dev && !address.ip().is_loopback() {
        return Err(ServeError::DevNotLoopback(address));
    }
    listener(address)
        .await
        .map_err(|source| ServeError::Listen { address, source })
}

async fn bind_admin(text: &str, dev: bool) -> Result<(TcpListener, SocketAddr), ServeError> {
    let no_address = |_| ServeError::AdminAddress(text.to_owned());
    let mut found = tokio::net::lookup_host(text).await.map_err(no_address)?;
    let address = found
        .next()
        .ok_or_else(|| ServeError::AdminAddress(text.to_owned()))?;
    bind(address, dev).await
}

async fn listener(address: impl ToSocketAddrs) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
