//! `syncline serve`.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    sync::Arc,
};
use syncline::engine;

use anyhow::Context;
use serde_json::json;
use syncline_core::{Timestamp, config::Config};
use syncline_server::net::{CONNECTIONS_MAX, Options, Server};

use crate::{
    args::Serve,
    backend::SqliteBackend,
    dev_tables::DevTables,
    exit::{Exit, Failure},
    output::Output,
    settings::listen_address,
    token,
};

pub(crate) const DATABASE: &str = "syncline.db";
/// A token printed by `--dev` is good for this long.
const DEV_TOKEN_DAYS: u64 = 30;

pub(crate) fn run(args: Serve, verbose: u8, output: &Output) -> anyhow::Result<Exit> {
    log(&args, verbose);
    let mut config = configuration(&args)?;
    let data = PathBuf::from(&config.server.data);
    let declared = config.schema.tables.len();
    let remember = args.dev.then(|| DevTables::in_folder(&data));
    if let Some(tables) = &remember {
        tables.add_to(&mut config)?;
    }
    let listen = listen_address(&config.server.listen)?;
    let auth = token::auth(&data)?;
    let dev_token = args.dev.then(|| {
        let now = engine::now();
        let expires = Timestamp::from_millis(now.as_millis() + DEV_TOKEN_DAYS * 86_400_000);
        auth.issue("dev", std::collections::BTreeMap::new(), now, expires)
    });
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    let path = database(&config, &data);
    let options = Options {
        listen,
        config,
        allow: args.allow.clone(),
        dev: args.dev,
        remember: remember.map(DevTables::remember),
        auth,
        connections_max: CONNECTIONS_MAX,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let backend = Arc::new(SqliteBackend { path: path.clone(), entropy });
        let server = Server::start(backend, options).await?;
        for note in server.notes() {
            output.note(note);
        }
        let url = server.url();
        output.result(
            &format!("Syncline listens on {url} with its data in {}", data.display()),
            &json!({ "type": "listening", "url": url, "database": path, "dev": args.dev }),
        );
        if let Some(token) = dev_token {
            let token = token?;
            output.note(&format!(
                "\n  --dev: this machine only; {}; every row private to who made it.\n\n  \
                 export SYNCLINE_URL={url}\n  export SYNCLINE_TOKEN={token}\n\n  \
                 Next: syncline attach APP.db   (a token for somebody else: syncline token --user NAME --data {})\n",
                if declared == 0 { "tables of devices are added".to_owned() } else { format!("{declared} tables declared, others are added") },
                data.display(),
            ));
        }
        wait_for_signal().await?;
        output.note("stopping: sessions are told to come back, accepted changes are finished");
        server.stop().await.context("stop the server")
    })?;
    Ok(Exit::Done)
}

/// The database of a server with this configuration.
pub(crate) fn database(config: &Config, data: &Path) -> PathBuf {
    match &config.server.database {
        Some(database) => PathBuf::from(database),
        None => data.join(DATABASE),
    }
}

fn configuration(args: &Serve) -> anyhow::Result<Config> {
    if args.dev || args.settings.file().is_some() {
        return args.settings.read();
    }
    let sentence = "there is no syncline.toml: `syncline init --from APP.db` writes one, --config \
                    names another file, and --dev does without";
    Err(Failure::new(Exit::Config, sentence).into())
}

fn log(args: &Serve, verbose: u8) {
    let default = match verbose {
        0 => "warn,syncline_server=info",
        1 => "info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("SYNCLINE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let _already = if args.log_json {
        logger.json().try_init()
    } else {
        logger.try_init()
    };
}

async fn wait_for_signal() -> anyhow::Result<()> {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminated.recv() => {}
    }
    Ok(())
}
