//! The command line.

mod api;
pub(crate) mod complete;
mod controller;
mod diff;
mod doctor;
mod domain;
pub(crate) mod human;
mod import;
mod logging;
mod output;
mod policy;
mod reach;
mod show;
mod table;
mod tenancy;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};
use weft_api::ClientError;

use crate::config::{Config, ConfigErrors};
use crate::router::history::{ChainsError, History};
use crate::{lab, router};
use output::Output;

/// SD-WAN router control plane: a multi-tenant overlay over plain BGP.
#[derive(Parser)]
#[command(name = "weft", version, max_term_width = 100, infer_subcommands = true, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const COMPLETIONS: &str = "\
For this shell and those to come:
  bash:  weft completions bash > /etc/bash_completion.d/weft
  zsh:   weft completions zsh > /usr/local/share/zsh/site-functions/_weft
  fish:  weft completions fish > ~/.config/fish/completions/weft.fish";

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 failed; 2 wrong command line; 3 the configuration is wrong; 4 no router answers.";

/// The environment variable in which a shell asks what completes a command line.
const COMPLETE: &str = "COMPLETE";

const EXIT_CONFIG: u8 = 3;
const EXIT_UNREACHABLE: u8 = 4;

#[derive(Subcommand)]
enum Command {
    /// Run a router. Forwarding stays when it ends; `weft down` removes it. On SIGHUP it reads its configuration again, and
    /// changes what differs.
    Router {
        /// The router's configuration, YAML.
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
        #[command(flatten)]
        state: State,
    },
    /// Check a configuration without starting anything; every error is shown with its place.
    Check {
        /// The configuration, YAML.
        file: PathBuf,
        /// Print it as it was understood, with all defaults.
        #[arg(long)]
        print: bool,
        #[command(flatten)]
        state: State,
    },
    /// Show what a reload with another configuration would do: what changes in place, whose routes are gone through again, which sessions
    /// end, and what waits for a restart. Nothing is changed.
    Diff(diff::Arguments),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
    /// Show the state of a running router.
    Show(show::Arguments),
    /// Explain the way of a tenant's packet through a running router, and whether the kernel agrees.
    Trace(trace::Arguments),
    /// Try routing policies.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Build and use labs of routers in network namespaces.
    Lab(lab::LabArgs),
    /// Make and run the controller of a domain.
    #[command(subcommand)]
    Controller(controller::ControllerCommand),
    /// Make the certificate and the tokens of a router's API that other hosts reach.
    #[command(subcommand)]
    Api(api::Command),
    /// Make, list and take back tokens: to join a domain, or to use its API.
    #[command(subcommand)]
    Token(controller::TokenCommand),
    /// Make tenants of a domain.
    #[command(subcommand)]
    Tenant(controller::TenantCommand),
    /// Trust other domains, and share tenants with them.
    #[command(subcommand)]
    Domain(domain::DomainCommand),
    /// Join a domain with a token; `weft router` does the same where the token is in its configuration.
    Join(controller::Join),
    /// Say what this host can do for an overlay, and whether the router that runs here forwards; and how to mend what is wrong.
    Doctor(doctor::Arguments),
    /// Remove everything that is Weft's from the kernel, in this network namespace.
    Down {
        /// Even while a router runs, which makes it again.
        #[arg(long)]
        force: bool,
    },
    /// Print a completion script for a shell: commands, options, and the names of tenants, neighbours, domains and nodes.
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write manual pages, one for each command, to a folder.
    #[command(hide = true)]
    Man {
        /// The folder, which is there.
        folder: PathBuf,
    },
    /// Print the version.
    Version,
}

/// Where a router keeps what it has to know after a restart.
#[derive(clap::Args)]
struct State {
    /// Folder where a router without a controller keeps which chains it ran: a restart or a check tells what can't follow them, as a
    /// reload does.
    #[arg(long = "state", value_name = "FOLDER", env = "STATE_DIRECTORY")]
    folder: Option<PathBuf>,
}

/// Runs the command line and says how it went.
pub(crate) fn main() -> ExitCode {
    // A shell that completes asks in an environment variable; that ends here.
    CompleteEnv::with_factory(Arguments::command)
        .var(COMPLETE)
        .complete();
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) => report(&error),
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Lab(arguments) => return lab::run(arguments),
        Command::Doctor(arguments) => return doctor::run(&arguments),
        Command::Trace(arguments) => return trace::run(&arguments),
        Command::Policy(command) => return policy::run(command),
        Command::Controller(command) => return controller::run(command),
        Command::Api(command) => return api::run(command),
        Command::Token(command) => return controller::token(command),
        Command::Tenant(command) => return controller::tenant(command),
        Command::Domain(command) => return domain::run(command),
        Command::Join(each) => return controller::join(&each),
        Command::Router { config, state } => {
            let file = config;
            let config = Config::read(&file)?;
            logging::start(&config.log)?;
            router::run(&file, config, state.folder.as_deref())
        }
        Command::Check { file, print, state } => {
            let config = Config::read(&file)?;
            if config.controller.is_none() {
                History::open(state.folder.as_deref(), &config.router.name)?.check(&config)?;
            }
            for warning in config.warnings() {
                Output::stderr().write(&format!("warning: {warning}\n"))?;
            }
            Output::stdout().write(&match print {
                true => config.to_yaml()?,
                false => format!("{}: {}\n", file.display(), summary(&config)),
            })
        }
        Command::Schema => Output::stdout().write(&format!(
            "{}\n",
            serde_json::to_string_pretty(&Config::json_schema())?
        )),
        Command::Show(arguments) => show::run(arguments),
        Command::Diff(arguments) => diff::run(&arguments),
        Command::Down { force } => Output::stdout().write(&router::down(force)?),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            let shells = Shells::builtins();
            let completer = shells
                .completer(&shell.to_string())
                .with_context(|| format!("there is no completion for {shell}"))?;
            completer.write_registration(COMPLETE, "weft", "weft", "weft", &mut script)?;
            Output::stdout().write(&String::from_utf8_lossy(&script))
        }
        Command::Man { folder } => clap_mangen::generate_to(Arguments::command(), &folder)
            .with_context(|| format!("cannot write to {}", folder.display())),
        Command::Version => {
            Output::stdout().write(concat!("weft ", env!("CARGO_PKG_VERSION"), "\n"))
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Prints to standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    Output::stdout().write(text)
}

/// One line that lets a reader see whether the file says what was meant.
fn summary(config: &Config) -> String {
    let router = &config.router;
    if let Some(controller) = &config.controller {
        return format!(
            "good: router {}; the controller at {} tells it its AS number, neighbours and tenants",
            router.name, controller.address
        );
    }
    let several = |number: usize, one| human::several(number as u64, one);
    let prefixes = config
        .tenants
        .iter()
        .map(|tenant| tenant.prefixes.len())
        .sum();
    format!(
        "good: router {} in AS {}, {}, {} with {}",
        router.name,
        router.asn,
        several(config.neighbors.len(), "neighbour"),
        several(config.tenants.len(), "tenant"),
        several(prefixes, "prefix"),
    )
}

/// An error and what it comes from, each thing said once.
pub(crate) fn words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // An error that quotes its cause has said it.
        if text.is_empty() {
            text = cause;
        } else if !text.contains(cause.trim_end()) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text.trim_end().to_owned()
}

fn report(error: &anyhow::Error) -> ExitCode {
    let stderr = Output::stderr();
    if let Some(errors) = error.downcast_ref::<ConfigErrors>() {
        let _ = stderr.write(&format!("{}\n", errors.render(stderr.colours())));
        return ExitCode::from(EXIT_CONFIG);
    }
    // Nobody is left to tell when standard error cannot be written.
    let _ = stderr.write(&format!("weft: {}\n", words(error)));
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Unreachable { .. }) => ExitCode::from(EXIT_UNREACHABLE),
        _ if error.is::<ChainsError>() => ExitCode::from(EXIT_CONFIG),
        _ => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_summary_counts_in_english() {
        let text = "router: { name: a1, router_id: 192.0.2.1, asn: 64601 }";
        let config = Config::parse("a1.yaml", text).unwrap();
        assert_eq!(
            summary(&config),
            "good: router a1 in AS 64601, 0 neighbours, 0 tenants with 0 prefixes"
        );
    }

    #[test]
    fn a_managed_router_has_no_as_number_to_show() {
        let text = "{ router: { name: a1 }, controller: { address: ctl.example } }";
        let config = Config::parse("a1.yaml", text).unwrap();
        assert_eq!(
            summary(&config),
            "good: router a1; the controller at ctl.example tells it its AS number, neighbours and tenants"
        );
    }

    #[test]
    fn an_error_that_quotes_its_cause_says_it_once() {
        let cause = || anyhow::anyhow!("No such file");
        let error = cause().context("cannot read a1.yaml");
        assert_eq!(words(&error), "cannot read a1.yaml: No such file");
        let error = cause()
            .context("cannot read a1.yaml: No such file")
            .context("the router does not start");
        assert_eq!(
            words(&error),
            "the router does not start: cannot read a1.yaml: No such file"
        );
    }

    #[test]
    fn commands_may_be_cut_where_that_is_unambiguous() {
        for words in [
            "weft sh ro 10.0.0.1",
            "weft show routes 10.0.0.1",
            "weft tr red 10.0.0.1",
        ] {
            assert!(
                Arguments::try_parse_from(words.split(' ')).is_ok(),
                "{words}"
            );
        }
        // `controller` or `completions`.
        assert!(Arguments::try_parse_from(["weft", "co", "status"]).is_err());
    }
}
