//! `weft doctor`: what this host can do, and the command that mends what it cannot.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use weft_api::types::{Forwarding, Status, Verdict};
use weft_api::{ClientError, SOCKET};
use weft_dataplane::doctor::{Finding, Health, doctor};

use super::human;
use super::reach::Reach;

use super::output::Output;
use super::table::{Cell, Table, Tone, View};

/// How long the router may take for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(super) struct Arguments {
    /// Print every finding as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Looks, prints, and fails where the overlay does not work, or would not.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut findings = router(&arguments.reach)?;
    findings.extend(doctor());
    let output = Output::stdout();
    output.write(&match arguments.json {
        true => format!("{}\n", serde_json::to_string_pretty(&findings)?),
        false => view(&findings, output.view(false)),
    })?;
    Ok(match findings.iter().any(|one| one.health == Health::Bad) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// What the router says that runs here, if one does.
fn router(reach: &Reach) -> anyhow::Result<Vec<Finding>> {
    let client = reach.client(Some(PATIENCE))?;
    Ok(match client.get::<Status>(&["status"], &[]) {
        Ok(status) => forwarding(&status.name, &status.forwarding),
        Err(ClientError::Unreachable { .. }) if !crate::router::is_running() => vec![Finding {
            area: "router",
            what: "this network namespace".into(),
            health: Health::Good,
            found: "no router runs here".into(),
            remedy: None,
        }],
        Err(error) => vec![Finding {
            area: "router",
            what: "API".into(),
            health: Health::Warning,
            found: error.to_string(),
            remedy: Some(format!(
                "`--api` names the router's API where it is not at {SOCKET}"
            )),
        }],
    })
}

/// The verdict, which is the one of `weft show status`, and what it follows from.
fn forwarding(name: &str, forwarding: &Forwarding) -> Vec<Finding> {
    let health = |verdict: Verdict| match verdict {
        Verdict::Forwarding => Health::Good,
        Verdict::Degraded => Health::Warning,
        Verdict::Down => Health::Bad,
    };
    let since = forwarding.since.map_or_else(String::new, |seconds| {
        format!(" for {}", human::duration(seconds))
    });
    let verdict = Finding {
        area: "router",
        what: name.to_owned(),
        health: health(forwarding.verdict),
        found: format!("{}{since}", forwarding.verdict.as_str()),
        remedy: None,
    };
    let conditions = forwarding.conditions.iter().map(|condition| Finding {
        area: "router",
        what: format!("{} {}", condition.code, condition.subject),
        health: health(condition.severity),
        found: condition.text.clone(),
        remedy: condition.remedy.clone(),
    });
    std::iter::once(verdict).chain(conditions).collect()
}

fn view(findings: &[Finding], view: View) -> String {
    let mut table = Table::new(&["STATE", "AREA", "WHAT", "FOUND"]);
    for finding in findings {
        table.row([
            state(finding.health),
            finding.area.into(),
            finding.what.clone().into(),
            finding.found.clone().into(),
        ]);
    }
    let mut out = table.render(view);
    let mut remedies = findings
        .iter()
        .filter_map(|finding| Some((finding, finding.remedy.as_ref()?)))
        .peekable();
    if remedies.peek().is_none() {
        out.push_str("\nnothing is to be mended\n");
        return out;
    }
    out.push('\n');
    for (finding, remedy) in remedies {
        let _ = writeln!(
            out,
            "{}\n    {}",
            tone(finding.health).paint(&finding.what, view.colours),
            remedy
        );
    }
    out
}

fn tone(health: Health) -> Tone {
    match health {
        Health::Good => Tone::Good,
        Health::Warning => Tone::Warning,
        Health::Bad => Tone::Bad,
    }
}

fn state(health: Health) -> Cell {
    let text = match health {
        Health::Good => "good",
        Health::Warning => "warning",
        Health::Bad => "bad",
    };
    Cell::new(text, tone(health))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
    use super::*;

    #[test]
    fn what_the_router_says_stands_first() {
        let text = r#"{"verdict": "degraded", "since": 61, "conditions": [{"code": "device", "subject": "vx0",
            "severity": "degraded", "text": "it is down", "remedy": "ip link set vx0 up", "since": 61, "count": 3}]}"#;
        let findings = forwarding("r1", &serde_json::from_str(text).unwrap());
        assert_eq!(
            view(&findings, View::default()),
            "STATE    AREA    WHAT        FOUND\n\
             warning  router  r1          degraded for 1m01s\n\
             warning  router  device vx0  it is down\n\n\
             device vx0\n    ip link set vx0 up\n"
        );
    }

    #[test]
    fn what_is_wrong_comes_with_its_remedy() {
        let finding = |health, remedy: Option<&str>| Finding {
            area: "port",
            what: "UDP port 4789".into(),
            health,
            found: "taken".into(),
            remedy: remedy.map(str::to_owned),
        };
        let text = view(&[finding(Health::Bad, Some("ss -lunp"))], View::default());
        assert_eq!(
            text,
            "STATE  AREA  WHAT           FOUND\n\
             bad    port  UDP port 4789  taken\n\n\
             UDP port 4789\n    ss -lunp\n"
        );
        let text = view(&[finding(Health::Good, None)], View::default());
        assert!(text.ends_with("\nnothing is to be mended\n"), "{text}");
    }
}
