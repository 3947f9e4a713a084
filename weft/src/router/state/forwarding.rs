//! Whether packets get where they should go: the conditions of all parts of the router, and the verdict that follows.

use weft_api::Unavailable;
use weft_api::types as api;
use weft_dataplane::{Condition, ConditionKind, DataplaneStatus, Severity, Verdict, verdict};

use super::{LiveState, ended};

impl LiveState {
    /// What is wrong in all parts of the router.
    pub(super) fn conditions(&self, kernel: &DataplaneStatus) -> Vec<Condition> {
        let mut conditions = [kernel.conditions.clone(), self.tunnels.conditions()].concat();
        conditions.extend(self.told.borrow().conditions());
        conditions
    }

    /// Whether the router as a whole forwards.
    pub(super) async fn forwarding(&self) -> Result<api::Forwarding, Unavailable> {
        let kernel = self.dataplane.status().await.ok_or_else(ended)?;
        Ok(forwarding(self.conditions(&kernel)))
    }
}

/// The verdict for a tenant: of what is wrong, what is another tenant's alone is no matter of its own.
pub(super) fn verdict_of(conditions: &[Condition], tenant: &str) -> api::Verdict {
    let concerns = |one: &&Condition| match one.kind {
        ConditionKind::FarTenant => {
            let whose = one.subject.strip_prefix(tenant);
            whose.is_some_and(|rest| rest.starts_with(','))
        }
        ConditionKind::ItemRefused => {
            let whose = one.subject.strip_prefix("tenant/");
            whose.is_none_or(|whose| whose == tenant)
        }
        _ => one.tenants.is_empty() || one.tenants.iter().any(|whose| whose == tenant),
    };
    api_verdict(verdict(conditions.iter().filter(concerns)))
}

fn api_verdict(verdict: Verdict) -> api::Verdict {
    match verdict {
        Verdict::Forwarding => api::Verdict::Forwarding,
        Verdict::Degraded => api::Verdict::Degraded,
        Verdict::Down => api::Verdict::Down,
    }
}

/// The verdict of these conditions, the worst and oldest first.
pub(super) fn forwarding(mut conditions: Vec<Condition>) -> api::Forwarding {
    conditions.sort_by_key(|one| {
        (
            std::cmp::Reverse(one.severity),
            std::cmp::Reverse(one.lasts),
        )
    });
    api::Forwarding {
        verdict: api_verdict(verdict(&conditions)),
        since: conditions
            .first()
            .filter(|worst| worst.severity > Severity::Notice)
            .map(|worst| worst.lasts.as_secs()),
        conditions: conditions
            .into_iter()
            .map(|one| api::Condition {
                code: one.kind.code().to_owned(),
                subject: one.subject,
                severity: match one.severity {
                    Severity::Notice => api::Verdict::Forwarding,
                    Severity::Degraded => api::Verdict::Degraded,
                    Severity::Down => api::Verdict::Down,
                },
                text: one.detail,
                remedy: one.remedy,
                since: one.lasts.as_secs(),
                count: one.count,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use weft_dataplane::Conditions;

    use super::*;

    #[test]
    fn what_is_wrong_with_one_tenant_is_no_other_ones_verdict() {
        let now = Instant::now();
        let mut conditions = Conditions::default();
        let red = || vec!["red".to_owned()];
        for (kind, subject) in [
            (ConditionKind::Attachment, "red0"),
            (ConditionKind::AttachmentRefused, "red1"),
            (ConditionKind::RouteRefused, "red"),
            (ConditionKind::ForeignRule, "IPv4 rule 7"),
        ] {
            conditions.set(now, (kind, subject), Severity::Degraded, "so", None);
            conditions.narrow(kind, subject, red());
            let list = conditions.list(now);
            assert_eq!(verdict_of(&list, "red"), api::Verdict::Degraded);
            assert_eq!(verdict_of(&list, "blue"), api::Verdict::Forwarding);
            // Found again it is still nobody else's.
            conditions.set(now, (kind, subject), Severity::Degraded, "so", None);
            assert_eq!(
                verdict_of(&conditions.list(now), "blue"),
                api::Verdict::Forwarding
            );
            conditions.clear(now, kind, subject);
        }
        let main = (ConditionKind::RouteRefused, "main table");
        conditions.set(now, main, Severity::Degraded, "so", None);
        assert_eq!(
            verdict_of(&conditions.list(now), "blue"),
            api::Verdict::Degraded
        );
    }
}
