//! The meaning of AudioHook's event codes and what to check, for the page, the alerts and `docs/event-codes.md`.
//!
//! The vendor publishes no list. The texts are based on the vendor's documentation of the protocol's limits and on
//! reports from users of integrations; inferred meanings are marked. The name and description that Genesys Cloud sends
//! with an event are shown first.

use std::fmt::Write;

/// An event code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct EventCode {
    pub id: &'static str,
    pub name: &'static str,
    /// The meaning, in one or two sentences.
    pub means: &'static str,
    /// What to check, in one or two imperative sentences.
    pub check: &'static str,
    /// Whether the meaning is inferred rather than published.
    pub inferred: bool,
    /// Whether the code reports a recovery instead of a failure.
    pub recovery: bool,
}

/// The known codes, sorted by id.
pub const EVENT_CODES: [EventCode; 10] = [
    EventCode {
        id: "AUDIOHOOK-0001",
        name: "AudioHook invalid server address",
        means: "The address of the AudioHook server in the integration's configuration is invalid, so no session can start.",
        check: "Check the connection URI of the integration: it must begin with wss:// and name a host that resolves in public DNS.",
        inferred: false,
        recovery: false,
    },
    EventCode {
        id: "AUDIOHOOK-0002",
        name: "AudioHook connection timeout",
        means: "The AudioHook server did not accept the connection, or did not answer the open message, in time.",
        check: "Check that the server is running and reachable from Genesys Cloud's addresses on port 443. Check its load and its accept queue.",
        inferred: true,
        recovery: false,
    },
    EventCode {
        id: "AUDIOHOOK-0003",
        name: "AudioHook authentication failure",
        means: "The AudioHook server refused the request's API key or signature.",
        check: "Compare the API key and client secret of the integration with those of the server. Check the server's clock, which signatures depend on.",
        inferred: true,
        recovery: false,
    },
    EventCode {
        id: "AUDIOHOOK-0004",
        name: "AudioHook protocol error",
        means: "The AudioHook server broke the protocol, for example with a message out of sequence, and the session was ended.",
        check: "Check the server's log for the conversation. Check that its sequence numbers (seq, clientseq) rise by one with each message.",
        inferred: false,
        recovery: false,
    },
    EventCode {
        id: "AUDIOHOOK-0005",
        name: "AudioHook disconnected",
        means: "The meaning of this code is not published. The simulated Genesys Cloud uses it for a server that closes the session before the call ends.",
        check: "Read the event's description. Check the server's log for the conversation, and for restarts or load balancer timeouts.",
        inferred: true,
        recovery: false,
    },
    EventCode {
        id: "AUDIOHOOK-0006",
        name: "AudioHook ping timeout",
        means: "The AudioHook server answered pings late or not at all, so the connection was considered dead.",
        check: "Check the server's load and event loop: pongs must not wait for audio processing. Check proxies between Genesys Cloud and the server.",
        inferred: false,
        recovery: false,
    },
    EventCode {
        id: "AUDIOHOOK-0007",
        name: "AudioHook session rate limited",
        means: "The meaning of this code is not published. The simulated Genesys Cloud uses it for a server that refuses sessions because there are too many.",
        check: "Read the event's description. Compare the server's session limit with the number of concurrent conversations.",
        inferred: true,
        recovery: false,
    },
    EventCode {
        id: "AUDIOHOOK-0008",
        name: "AudioHook session recovered",
        means: "The meaning of this code is not published. The simulated Genesys Cloud uses it for audio streaming that works again.",
        check: "No action needed.",
        inferred: true,
        recovery: true,
    },
    EventCode {
        id: "AUDIOHOOK-0009",
        name: "AudioHook invalid server message",
        means: "The AudioHook server sent a message that Genesys Cloud could not accept, and the session was ended.",
        check: "Check the server's log for the message. Check its type, its JSON and its required parameters against the AudioHook protocol.",
        inferred: false,
        recovery: false,
    },
    EventCode {
        id: "AUDIOHOOK-0012",
        name: "AudioHook message rate exceeded",
        means: "The AudioHook server sent more messages than allowed: 5 per second, in bursts of 25 at most.",
        check: "Reduce or combine the messages that the server sends, such as events with transcripts.",
        inferred: false,
        recovery: false,
    },
];

/// Looks up a code by id.
pub fn event_code(id: &str) -> Option<&'static EventCode> {
    EVENT_CODES.iter().find(|code| code.id == id)
}

/// Generates `docs/event-codes.md`.
pub fn event_codes_document() -> String {
    let mut out = String::from(
        "# AudioHook event codes\n\n\
         What each code means and what to check. The vendor publishes no list: the name and description that Genesys Cloud\n\
         sends with an event come first, and new codes appear over time. Rows marked *inferred* are not published anywhere.\n\
         The live page and the alert rules show the same texts.\n\n\
         | code | name | what it means | what to check | |\n|---|---|---|---|---|\n",
    );
    for code in EVENT_CODES {
        let mark = if code.inferred { "*inferred*" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "| {} | {} | {} | {} | {mark} |", code.id, code.name, code.means, code.check);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_in_order_and_complete() {
        assert!(EVENT_CODES.is_sorted_by_key(|code| code.id));
        for code in EVENT_CODES {
            assert!(code.id.starts_with(super::super::ID_PREFIX), "{}", code.id);
            for sentence in [code.means, code.check] {
                assert!(sentence.ends_with('.') && !sentence.contains('|'), "{sentence}");
            }
        }
        assert!(event_code("AUDIOHOOK-0006").is_some() && event_code("AUDIOHOOK-9999").is_none());
    }

    #[test]
    fn the_document_in_docs_is_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/event-codes.md");
        if std::env::var_os("WRITE_DOCS").is_some() {
            std::fs::write(path, event_codes_document()).unwrap();
        }
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert!(there == event_codes_document(), "run: WRITE_DOCS=1 cargo test --lib event::codes");
    }
}
