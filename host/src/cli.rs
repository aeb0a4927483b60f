//! The command line: one file per command, and nothing else of the program here.
//!
//! What was typed lives here only; commands turn it into values of the layers below. Exit codes
//! are the same for all commands; every help text names them.

mod call;
mod check;
mod control;
mod dev;
mod doctor;
mod exec;
mod gateway;
mod generate;
mod hosts;
mod inspect;
mod install;
mod keygen;
mod leash;
mod logs;
mod new;
mod output;
mod pack;
mod paragraphs;
mod password;
mod reference;
mod run;
mod schema;
mod sign;
mod unpack;
mod verify;
mod version;
mod worker;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// It did not work; standard error or the log says why.
const FAILURE: u8 = 1;

/// What was asked for is wrong: a flag, a variable or the configuration file.
const USAGE: u8 = 2;

/// Ends the help of every command.
const HELP: &str = "Exit codes: 0 it worked, 1 it did not, 2 a flag or the configuration is wrong.";

/// Runs shared-library plugins for an Apache APISIX gateway and upgrades them in place.
#[derive(Debug, Parser)]
#[command(name = "plugin-host", version, after_help = HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Call(Box<call::CallArgs>),
    Exec(exec::ExecArgs),
    New(new::NewArgs),
    Dev(dev::DevArgs),
    Gateway(gateway::GatewayArgs),
    Check(check::CheckArgs),
    Schema(schema::SchemaArgs),
    Pack(pack::PackArgs),
    Inspect(inspect::InspectArgs),
    Unpack(unpack::UnpackArgs),
    Install(install::InstallArgs),
    Update(install::UpdateArgs),
    Outdated(install::OutdatedArgs),
    Remove(install::RemoveArgs),
    Sync(install::SyncArgs),
    Push(install::PushArgs),
    Keygen(keygen::KeygenArgs),
    Sign(sign::SignArgs),
    Verify(verify::VerifyArgs),
    Rehearse(check::RehearseArgs),
    Hosts(hosts::HostsArgs),
    Status(control::StatusArgs),
    List(control::ListArgs),
    Show(control::ShowArgs),
    Reload(control::ReloadArgs),
    Upgrade(control::UpgradeArgs),
    Rollback(control::RollbackArgs),
    Disable(control::DisableArgs),
    Enable(control::EnableArgs),
    Quarantine(control::QuarantineArgs),
    Lift(control::LiftArgs),
    Unblock(control::UnblockArgs),
    Chains(control::ChainsArgs),
    Tokens(control::TokensArgs),
    Workers(control::WorkersArgs),
    Metrics(control::MetricsArgs),
    ReplaceWorker(control::ReplaceWorkerArgs),
    Crashes(control::CrashesArgs),
    Settings(control::SettingsArgs),
    Logs(logs::LogsArgs),
    LogLevel(control::LogLevelArgs),
    WaitReady(control::WaitReadyArgs),
    Doctor(doctor::DoctorArgs),
    Drain(control::DrainArgs),
    UpgradeHost(control::UpgradeHostArgs),
    Completions(generate::CompletionsArgs),
    Man(generate::ManArgs),
    Reference(reference::ReferenceArgs),
    Version(version::VersionArgs),
    Worker(worker::WorkerArgs),
    Leash(leash::LeashArgs),
    Resume(run::ResumeArgs),
    Heir(run::HeirArgs),
}

/// The whole program: reads the command line, does what it says, gives the exit code.
pub fn main() -> ExitCode {
    let typed = Cli::from_arg_matches(&command().get_matches());
    let code = match typed.unwrap_or_else(|error| error.exit()).command {
        Command::Run(args) => run::run(args),
        Command::Call(args) => call::call(&args),
        Command::Exec(args) => exec::exec(&args),
        Command::New(args) => new::new(&args),
        Command::Dev(args) => dev::dev(&args),
        Command::Gateway(args) => gateway::gateway(&args),
        Command::Check(args) => check::check(&args),
        Command::Schema(args) => schema::schema(&args),
        Command::Pack(args) => pack::pack(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Unpack(args) => unpack::unpack(&args),
        Command::Install(args) => install::install(&args),
        Command::Update(args) => install::update(&args),
        Command::Outdated(args) => install::outdated(&args),
        Command::Remove(args) => install::remove(&args),
        Command::Sync(args) => install::sync(&args),
        Command::Push(args) => install::push(&args),
        Command::Keygen(args) => keygen::keygen(&args),
        Command::Sign(args) => sign::sign(&args),
        Command::Verify(args) => verify::verify(&args),
        Command::Rehearse(_) => check::rehearse(),
        Command::Hosts(args) => hosts::hosts(&args),
        Command::Status(args) => control::status(&args),
        Command::List(args) => control::list(&args),
        Command::Show(args) => control::show(&args),
        Command::Reload(args) => control::reload(&args),
        Command::Upgrade(args) => control::upgrade(&args),
        Command::Rollback(args) => control::rollback(&args),
        Command::Disable(args) => control::disable(&args),
        Command::Enable(args) => control::enable(&args),
        Command::Quarantine(args) => control::quarantine(&args),
        Command::Lift(args) => control::lift(&args),
        Command::Unblock(args) => control::unblock(&args),
        Command::Chains(args) => control::chains(&args),
        Command::Tokens(args) => control::tokens(&args),
        Command::Workers(args) => control::workers(&args),
        Command::Metrics(args) => control::metrics(&args),
        Command::ReplaceWorker(args) => control::replace_worker(&args),
        Command::Crashes(args) => control::crashes(&args),
        Command::Settings(args) => control::settings(&args),
        Command::Logs(args) => logs::logs(&args),
        Command::LogLevel(args) => control::log_level(&args),
        Command::WaitReady(args) => control::wait_ready(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Drain(args) => control::drain(&args),
        Command::Completions(args) => generate::completions(&args),
        Command::Man(args) => generate::man(&args),
        Command::Reference(_) => reference::reference(),
        Command::Version(args) => version::version(&args),
        Command::UpgradeHost(args) => control::upgrade_host(&args),
        Command::Resume(args) => run::resume(args),
        Command::Heir(_) => run::heir(),
        Command::Worker(args) => worker::worker(args),
        Command::Leash(args) => leash::leash(&args),
    };
    ExitCode::from(code)
}

/// The command line, with help that fits terminals of any width.
fn command() -> clap::Command {
    Cli::command().mut_subcommands(paragraphs::join)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_help_that_names_the_exit_codes() {
        // A line is never broken.
        let mut cli = command().term_width(usize::MAX);
        cli.build();
        for command in cli.get_subcommands_mut().filter(|c| c.get_name() != "help") {
            let help = command.render_long_help().to_string();
            assert!(help.contains(HELP), "{help}");
        }
    }
}
