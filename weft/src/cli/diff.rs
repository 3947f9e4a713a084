//! `weft diff`: what a reload would do, before it does it.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::human::several;
use super::show::{Screen, Target};
use super::table::{Cell, Table, Tone, View};
use crate::config::Config;
use crate::router::difference::{Difference, Effect, differences};

#[derive(Args)]
pub(super) struct Arguments {
    /// The configuration to be, YAML.
    file: PathBuf,
    /// Compare with this file, and not with what the running router was given last.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    #[command(flatten)]
    router: Target,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let wanted = Config::read(&arguments.file)?;
    let screen = Screen::new(&arguments.router)?;
    let now = match &arguments.from {
        Some(file) => Config::read(file)?,
        None => {
            let given: Value = screen.get(&["config"], &[])?;
            Config::parse("the running router", &given.to_string())?
        }
    };
    screen.print(&differences(&now, &wanted), view)
}

fn view(all: &Vec<Difference>, view: View) -> String {
    if all.is_empty() {
        return "nothing differs\n".to_owned();
    }
    let mut table = Table::new(&["ITEM", "DIFFERS", "A RELOAD"]);
    for one in all {
        let tone = match one.effect {
            Effect::InPlace => Tone::Good,
            Effect::Reevaluated => Tone::Plain,
            Effect::Interrupts => Tone::Bad,
            Effect::Restart => Tone::Warning,
        };
        table.row([
            Cell::new(one.item.clone(), Tone::Strong),
            Cell::from(one.change.clone()),
            Cell::new(one.says.clone(), tone),
        ]);
    }
    let count = |effect: Effect| all.iter().filter(|one| one.effect == effect).count() as u64;
    let mut text = table.render(view);
    text += &match count(Effect::Interrupts) {
        0 => "no session ends, and no packet is dropped".to_owned(),
        some => format!("{} is interrupted", several(some, "session or tenant")),
    };
    if let waiting @ 1.. = count(Effect::Restart) {
        text += &format!("; {} takes a restart", several(waiting, "section"));
    }
    text.push('\n');
    text
}
