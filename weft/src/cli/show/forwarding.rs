//! Whether the router forwards: the line that every view of it begins with.

use weft_api::types::{Forwarding, Verdict};

use super::super::human;
use super::super::table::{Sheet, Tone};

/// Conditions in full; further ones are counted.
const SHOWN: usize = 10;

/// How a verdict looks.
pub(in super::super) fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Forwarding => Tone::Good,
        Verdict::Degraded => Tone::Warning,
        Verdict::Down => Tone::Bad,
    }
}

/// The verdict, and what is wrong with what can be done.
pub(in super::super) fn put(sheet: &mut Sheet, forwarding: &Forwarding) {
    let since = forwarding
        .since
        .map(|seconds| format!(" for {}", human::duration(seconds)));
    let word = forwarding.verdict.as_str();
    sheet.line(
        "state",
        format!("{word}{}", since.unwrap_or_default()),
        tone(forwarding.verdict),
    );
    for condition in forwarding.conditions.iter().take(SHOWN) {
        let tone = match condition.severity {
            Verdict::Down => Tone::Bad,
            _ => Tone::Warning,
        };
        let text = format!(
            "{}, {}: {} (for {})",
            condition.code,
            condition.subject,
            condition.text,
            human::duration(condition.since)
        );
        sheet.line("  because", text, tone);
        if let Some(remedy) = &condition.remedy {
            sheet.line("  remedy", remedy.clone(), Tone::Plain);
        }
    }
    let more = forwarding.conditions.len().saturating_sub(SHOWN);
    if more > 0 {
        sheet.line(
            "  because",
            format!("{more} more; -o json has all"),
            Tone::Dim,
        );
    }
}
