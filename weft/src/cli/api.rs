//! `weft api`: the certificate and the tokens of a router's API at a port that other hosts reach.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use weft_api::token::TokenText;
use weft_api::{Address, Known, Role, Tokens, certificate_fingerprint, share};
use weft_discovery::pki::{self_signed, write_secret};

use super::output::Output;
use super::table::{Cell, Table, Tone};
use crate::config::{ApiTls, Config};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a certificate and its key, where the configuration says, that tokens know by its fingerprint: no authority is needed.
    Certificate {
        /// The router's configuration.
        config: PathBuf,
        /// Another name or address that the API is asked by; may be repeated.
        #[arg(long = "name")]
        names: Vec<String>,
        /// Also where there is one: tokens that were made before know the former one.
        #[arg(long)]
        force: bool,
    },
    /// Make, list and take back tokens. They hold from the next request on, whether a router runs or not.
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token, and print it for the only time.
    Create {
        /// The router's configuration.
        config: PathBuf,
        /// `read` may look at everything, `operate` send packets besides.
        #[arg(long, default_value = "read", value_parser = role())]
        role: Role,
        /// Whose it is, for humans.
        #[arg(long, default_value = "")]
        name: String,
    },
    /// List tokens.
    List {
        /// The router's configuration.
        config: PathBuf,
    },
    /// Take a token back.
    Revoke {
        /// The router's configuration.
        config: PathBuf,
        /// Its id.
        id: String,
    },
}

fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(["read", "operate"]).try_map(|text| text.parse::<Role>())
}

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Certificate {
            config,
            names,
            force,
        } => certificate(&config, names, force)?,
        Command::Token(TokenCommand::Create { config, role, name }) => {
            let tls = tls(&read(&config)?)?;
            let fingerprint = certificate_fingerprint(&tls.certificate).map_err(|error| {
                anyhow::anyhow!(
                    "{error}; `weft api certificate {}` makes it",
                    config.display()
                )
            })?;
            let token = TokenText::create(fingerprint);
            Tokens::add(&tls.tokens, Known::new(&token, role, &name))
                .with_context(|| format!("cannot write {}", tls.tokens.display()))?;
            Output::stdout().write(&format!("{token}\n"))?;
        }
        Command::Token(TokenCommand::List { config }) => {
            let tls = tls(&read(&config)?)?;
            let tokens = Tokens::open(&tls.tokens)
                .with_context(|| format!("cannot read {}", tls.tokens.display()))?;
            let output = Output::stdout();
            let mut table = Table::new(&["ID", "ROLE", "NAME"]);
            for known in tokens.all() {
                let Known { id, role, name, .. } = known;
                let cells = [id, role.to_string(), name];
                table.row(cells.map(|text| Cell::new(text, Tone::Plain)));
            }
            output.write(&table.render(output.view(false)))?;
        }
        Command::Token(TokenCommand::Revoke { config, id }) => {
            let tls = tls(&read(&config)?)?;
            let there = Tokens::remove(&tls.tokens, &id)
                .with_context(|| format!("cannot change {}", tls.tokens.display()))?;
            if !there {
                bail!("{} has no token `{id}`", tls.tokens.display());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> anyhow::Result<Config> {
    Config::read(file)
}

fn tls(config: &Config) -> anyhow::Result<ApiTls> {
    config.api.tls.clone().context(
        "the configuration does not say where they are: api: { listen: [/run/weft/api.sock, ADDRESS:8179], tls: { certificate: \
         /etc/weft/api.pem, key: /etc/weft/api.key, tokens: /etc/weft/api.tokens } }",
    )
}

fn certificate(file: &Path, mut names: Vec<String>, force: bool) -> anyhow::Result<()> {
    let config = read(file)?;
    let tls = tls(&config)?;
    for path in [&tls.certificate, &tls.key] {
        if path.exists() && !force {
            bail!(
                "{} is there already, and stays; with --force it is made anew, and so are the tokens to be",
                path.display()
            );
        }
    }
    names.push(config.router.name.clone());
    names.extend(config.api.listen.iter().filter_map(|place| match place {
        Address::Tcp(address) if !address.ip().is_unspecified() => Some(address.ip().to_string()),
        _ => None,
    }));
    let (key, certificate) = self_signed(&config.router.name, &names)?;
    for (path, text) in [(&tls.key, &key), (&tls.certificate, &certificate)] {
        let before = std::fs::metadata(path).ok();
        write_secret(path, text.as_bytes())?;
        share(path, before.as_ref())?;
    }
    let fingerprint = certificate_fingerprint(&tls.certificate).map_err(anyhow::Error::msg)?;
    Output::stdout().write(&format!("{}: {fingerprint}\n", tls.certificate.display()))
}
