//! The `syncline` command: a server, and everything one does with a file.

mod args;
mod backend;
mod commands;
mod dev_tables;
mod exit;
mod moment;
mod output;
mod printable;
mod progress;
mod prompt;
mod settings;
mod token;

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use args::{Args, Command};
use output::Output;

const _: () = assert!(
    !syncline_core::planted::COMPILED,
    "bugs planted for the simulator's tests are never shipped"
);

fn main() -> ExitCode {
    // Two TLS providers may be linked in: whoever is first decides, so nothing panics later.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("another TLS provider was installed before");
    }
    let matches = Args::command().get_matches_from(args::file_first(std::env::args_os()));
    let args = Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let output = Output {
        json: args.json,
        quiet: args.quiet,
    };
    match run(args, &matches, &output) {
        Ok(code) => code.into(),
        Err(error) => {
            let code = exit::code_of(&error);
            output.error(&error, code);
            code.into()
        }
    }
}

fn run(args: Args, matches: &ArgMatches, output: &Output) -> anyhow::Result<exit::Exit> {
    match args.command {
        Command::Serve(serve) => commands::serve::run(serve, args.verbose, output),
        Command::Init(init) => commands::config::init(&init, output),
        Command::Check(check) => commands::config::check(&check, output),
        Command::Explain(explain) => commands::explain::run(&explain, output),
        Command::Test(test) => commands::rule_test::run(&test, output),
        Command::Config(show) => {
            let source = matches.subcommand().map(|(_, matches)| matches);
            commands::config::show(&show, source, output)
        }
        Command::Generate(generate) => commands::generate::run(&generate, output),
        Command::Token(token) => commands::config::token(&token, output),
        Command::Users(users) => commands::users::run(users, output),
        Command::Audit(audit) => commands::users::audit(&audit, output),
        Command::Login(login) => commands::login::login(&login, output),
        Command::Logout(logout) => commands::login::logout(&logout, output),
        Command::Whoami(server) => commands::login::whoami(&server, output),
        Command::Backup(backup) => commands::backup::back_up(&backup, output),
        Command::Restore(restore) => commands::backup::restore(&restore, output),
        Command::Attach(attach) => commands::attach::attach(attach, args.verbose, output),
        Command::Detach(detach) => commands::attach::detach(&detach, output),
        Command::Hydrate(hydrate) => commands::sync::hydrate(hydrate, args.verbose, output),
        Command::Sync(sync) => commands::sync::sync(sync, args.verbose, output),
        Command::Seed(sync) => commands::sync::seed(sync, args.verbose, output),
        Command::Migrate(migrate) => commands::migrate::run(&migrate, output),
        Command::Status(file) => commands::status::status(&file.file, output),
        Command::Subscribe(subscribe) => commands::subscribe::subscribe(&subscribe, output),
        Command::Unsubscribe(unsubscribe) => commands::subscribe::unsubscribe(&unsubscribe, output),
        Command::Subscriptions(file) => commands::subscribe::list(&file.file, output),
        Command::Conflicts(conflicts) => commands::conflicts::run(conflicts, output),
        Command::History(history) => commands::history::run(&history, args.verbose, output),
        Command::Queue(queue) => commands::queue::run(queue, output),
        Command::Devices(devices) => commands::devices::run(devices, args.verbose, output),
        Command::EncryptionKey(key) => commands::encryption_key(&key.to, output),
        Command::Reseal(reseal) => commands::reseal::run(&reseal, output),
        Command::Verify(verify) => commands::verify::run(verify, args.verbose, output),
        Command::Doctor(doctor) => commands::doctor::run(doctor, args.verbose, output),
        Command::Bench(bench) => commands::bench::run(&bench, output),
        Command::Sim(sim) => commands::sim::run(&sim, output),
        Command::Completions(completions) => commands::completions(completions.shell),
    }
}
