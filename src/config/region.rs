//! GENESYS_ENV: the domain of a Genesys Cloud region. An unknown domain is accepted, since regions are added.

use super::values::{Parsed, is_host_name};

/// The domains of the known regions, from Genesys's list.
const KNOWN: [&str; 18] = [
    "mypurecloud.com",
    "mypurecloud.ie",
    "mypurecloud.de",
    "mypurecloud.jp",
    "mypurecloud.com.au",
    "usw2.pure.cloud",
    "cac1.pure.cloud",
    "mxc1.pure.cloud",
    "sae1.pure.cloud",
    "euw2.pure.cloud",
    "euc2.pure.cloud",
    "mec1.pure.cloud",
    "aps1.pure.cloud",
    "apse1.pure.cloud",
    "apne2.pure.cloud",
    "apne3.pure.cloud",
    "use2.us-gov-pure.cloud",
    "edee1.eusc-pure.cloud",
];

/// Prefixes of the domain in addresses that people copy.
const SERVICES: [&str; 6] = ["login.", "api.", "apps.", "streaming.", "developer.", "www."];

/// Whether the domain is in Genesys's list.
pub fn is_known(domain: &str) -> bool {
    KNOWN.contains(&domain)
}

/// Parses the region's domain, and returns it in lower case. A pasted address is refused, with its domain in the error.
/// If GENESYS_LOGIN_URL and GENESYS_API_URL are both set, any host name is accepted.
pub fn domain(text: &str, addresses_given: bool) -> Parsed<String> {
    let text = text.trim().to_ascii_lowercase();
    let bare = text.split_once("://").map_or(text.as_str(), |(_, rest)| rest);
    let bare = bare.split(['/', '?', '#', ':']).next().unwrap_or_default();
    let bare = SERVICES.iter().find_map(|service| bare.strip_prefix(service)).unwrap_or(bare);
    let bare = bare.trim_end_matches('.');
    if bare != text {
        return Err(if is_domain(bare) {
            format!("must be only the region's domain, without scheme, service, port or path: {bare}")
        } else {
            "must be only the region's domain, such as mypurecloud.com or usw2.pure.cloud".to_owned()
        });
    }
    let fits = if addresses_given { is_host_name(bare) } else { is_domain(bare) };
    if !fits {
        return Err("must be the region's domain, such as mypurecloud.com or usw2.pure.cloud".to_owned());
    }
    Ok(text)
}

fn is_domain(text: &str) -> bool {
    text.contains('.') && is_host_name(text) && !text.contains('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_domain_is_accepted() {
        for text in ["mypurecloud.com", "usw2.pure.cloud", "new9.pure.cloud", "sim.test"] {
            assert_eq!(domain(text, false).as_deref(), Ok(text));
        }
        assert_eq!(domain(" MyPureCloud.IE ", false).as_deref(), Ok("mypurecloud.ie"));
        assert!(is_known("mypurecloud.com.au") && !is_known("new9.pure.cloud"));
    }

    #[test]
    fn an_address_pasted_whole_is_refused_with_the_domain_in_it() {
        for text in [
            "https://login.mypurecloud.com",
            "login.mypurecloud.com",
            "https://api.mypurecloud.com/api/v2/",
            "mypurecloud.com/",
            "https://mypurecloud.com:443",
            "https://apps.mypurecloud.com/directory/#/admin",
        ] {
            let error = domain(text, true).expect_err(text);
            assert!(error.ends_with(": mypurecloud.com"), "{text}: {error}");
        }
        for text in
            ["", "usw2", "us-west-2", "localhost", "https://", "my purecloud.com", "x..y", "https://localhost:80"]
        {
            assert!(domain(text, false).is_err(), "{text}");
        }
        assert_eq!(domain("localhost", true).as_deref(), Ok("localhost"));
    }
}
