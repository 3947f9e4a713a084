//! `weft doctor`: what this host can do, and the command that mends what it cannot.

use std::fmt::Write as _;
use std::process::ExitCode;

use weft_dataplane::doctor::{Finding, Health, doctor};

use super::output::Output;
use super::table::{Cell, Table, Tone};

/// Looks, prints, and fails where the overlay would not work.
pub(super) fn run(json: bool) -> anyhow::Result<ExitCode> {
    let findings = doctor();
    let output = Output::stdout();
    output.write(&match json {
        true => format!("{}\n", serde_json::to_string_pretty(&findings)?),
        false => view(&findings, output.colours()),
    })?;
    Ok(match findings.iter().any(|of| of.health == Health::Bad) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

fn view(findings: &[Finding], colours: bool) -> String {
    let mut table = Table::new(&["STATE", "AREA", "WHAT", "FOUND"]);
    for finding in findings {
        table.row([
            state(finding.health),
            finding.area.into(),
            finding.what.clone().into(),
            finding.found.clone().into(),
        ]);
    }
    let mut out = table.render(colours);
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
            tone(finding.health).paint(&finding.what, colours),
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
    use super::*;

    #[test]
    fn what_is_wrong_comes_with_its_remedy() {
        let finding = |health, remedy: Option<&str>| Finding {
            area: "port",
            what: "UDP port 4789".into(),
            health,
            found: "taken".into(),
            remedy: remedy.map(str::to_owned),
        };
        let text = view(&[finding(Health::Bad, Some("ss -lunp"))], false);
        assert_eq!(
            text,
            "STATE  AREA  WHAT           FOUND\n\
             bad    port  UDP port 4789  taken\n\n\
             UDP port 4789\n    ss -lunp\n"
        );
        let text = view(&[finding(Health::Good, None)], false);
        assert!(text.ends_with("\nnothing is to be mended\n"), "{text}");
    }
}
