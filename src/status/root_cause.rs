//! Which reasons are only the consequence of another one: they are neither shown nor logged while that lasts.

use super::reason::Code;

/// Which reasons follow from which: a root cause, and what it brings about by itself. Alert rules are inhibited alike.
pub const CONSEQUENCES: [(Code, &[Code]); 8] = {
    use Code::{
        CredentialsRefused, DefinitionsUnconfirmed, DiskWriteFailed, ElasticRefused, ElasticUnreachable,
        HistoryFailing, HistoryForbidden, NotReceiving, SocketDown, Stalled, Starting, SubscriptionRejected,
    };
    [
        (CredentialsRefused, &[NotReceiving, Starting, SocketDown, HistoryFailing, DefinitionsUnconfirmed]),
        // It names what keeps each of the two ways from working.
        (
            NotReceiving,
            &[Starting, SocketDown, HistoryForbidden, HistoryFailing, SubscriptionRejected, DefinitionsUnconfirmed],
        ),
        (SocketDown, &[Starting]),
        // The same permission is needed for both.
        (HistoryForbidden, &[DefinitionsUnconfirmed]),
        (HistoryFailing, &[Starting, DefinitionsUnconfirmed]),
        // A writer that waits for its disk takes nothing from the socket and the history.
        (DiskWriteFailed, &[Starting, SocketDown, HistoryFailing]),
        (Stalled, &[Starting, SocketDown, HistoryFailing]),
        (ElasticRefused, &[ElasticUnreachable]),
    ]
};

impl Code {
    /// Whether this reason is only the consequence of another one that is raised: then it is not shown.
    pub fn is_derived(self, raised: &[Code]) -> bool {
        CONSEQUENCES.iter().any(|(root, derived)| raised.contains(root) && derived.contains(&self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Severity;

    #[test]
    fn only_root_causes_are_left_and_one_always_is() {
        use Code::*;
        let roots =
            |raised: &[Code]| -> Vec<Code> { raised.iter().copied().filter(|code| !code.is_derived(raised)).collect() };
        assert_eq!(
            roots(&[CredentialsRefused, NotReceiving, Starting, SocketDown, HistoryFailing, DefinitionsUnconfirmed]),
            [CredentialsRefused]
        );
        assert_eq!(
            roots(&[NotReceiving, SocketDown, HistoryForbidden, SubscriptionRejected, ElasticRefused]),
            [NotReceiving, ElasticRefused]
        );
        assert_eq!(roots(&[Starting, SocketDown]), [SocketDown]);
        assert_eq!(
            roots(&[ElasticRefused, ElasticUnreachable, ElasticBacklogDropped]),
            [ElasticRefused, ElasticBacklogDropped]
        );
        for one in Code::ALL {
            assert_eq!(roots(&[one]), [one]);
            for other in Code::ALL {
                let both = [one, other];
                assert!(!roots(&both).is_empty(), "{both:?}");
                // What is worst is never hidden behind what is less.
                let is_bad = both.iter().any(|code| code.severity() == Severity::Unhealthy);
                assert!(!is_bad || roots(&both).iter().any(|code| code.severity() == Severity::Unhealthy), "{both:?}");
            }
        }
    }
}
