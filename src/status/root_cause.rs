//! Root causes: a reason that only follows from another one is neither shown nor logged while that one is raised.

use super::reason::Code;

/// Root causes and the reasons that follow from them. The inhibition of the alert rules is the same.
pub const CONSEQUENCES: [(Code, &[Code]); 8] = {
    use Code::{
        CredentialsRefused, DefinitionsUnconfirmed, DiskWriteFailed, ElasticRefused, ElasticUnreachable,
        HistoryFailing, HistoryForbidden, NotReceiving, SocketDown, Stalled, Starting, SubscriptionRejected,
    };
    [
        (CredentialsRefused, &[NotReceiving, Starting, SocketDown, HistoryFailing, DefinitionsUnconfirmed]),
        // Its message names the causes for the WebSocket and for the history.
        (
            NotReceiving,
            &[Starting, SocketDown, HistoryForbidden, HistoryFailing, SubscriptionRejected, DefinitionsUnconfirmed],
        ),
        (SocketDown, &[Starting]),
        // The same permission is needed for both.
        (HistoryForbidden, &[DefinitionsUnconfirmed]),
        (HistoryFailing, &[Starting, DefinitionsUnconfirmed]),
        // While the writer waits for the disk, nothing is read from the socket and the history.
        (DiskWriteFailed, &[Starting, SocketDown, HistoryFailing]),
        (Stalled, &[Starting, SocketDown, HistoryFailing]),
        (ElasticRefused, &[ElasticUnreachable]),
    ]
};

impl Code {
    /// Whether this reason only follows from another raised one.
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
                // An unhealthy reason is never hidden by a degraded one.
                let is_bad = both.iter().any(|code| code.severity() == Severity::Unhealthy);
                assert!(!is_bad || roots(&both).iter().any(|code| code.severity() == Severity::Unhealthy), "{both:?}");
            }
        }
    }
}
