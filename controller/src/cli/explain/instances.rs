//! What the codes mean that an agent answers an instance with. They are the instance API's own: some of the platform's
//! errors have the same name and mean something else.

/// Where all of them are told.
const MANUAL: &str = "docs/instances.md";

/// Code, status, and what to do about it.
const CODES: [(&str, u16, &str); 12] = [
    (
        "unauthorized",
        401,
        "The token does not count: make a new one for every call, signed with PLATFORM_SERVICE_TOKEN, and see that the \
         host's clock is right.",
    ),
    (
        "forbidden",
        403,
        "The token is of another kind of service: its `service_type` has to be `isp`.",
    ),
    (
        "not-found",
        404,
        "There is no such thing, or it is another tenant's: compare the tenant, licence key or activation token with what \
         the instance was started with.",
    ),
    (
        "method-not-allowed",
        405,
        "The path does not take this method: compare the call with the table of calls.",
    ),
    (
        "timeout",
        408,
        "The request took more than 10 s: send it again, and look at what slows the host down.",
    ),
    (
        "body-too-large",
        413,
        "Send less at once: 64 KiB a call, 1 MiB a batch of events.",
    ),
    (
        "invalid-body",
        422,
        "The body is not what the call takes: `errors` names every wrong member and what is allowed. The same body again \
         is refused again.",
    ),
    (
        "invalid-query",
        422,
        "A parameter of the address is there twice: give each once.",
    ),
    (
        "too-many-reports",
        429,
        "The instance reports more than it may: send it again after the seconds of `Retry-After`, and report less often.",
    ),
    (
        "busy",
        503,
        "Too many calls at once, of this instance or of all on the host: send it again after `Retry-After`, fewer at a \
         time.",
    ),
    (
        "reports-full",
        503,
        "Too many reports wait for the controllers: keep it and send it again after `Retry-After`. Whoever operates the \
         agent sees that it reaches a controller.",
    ),
    (
        "unavailable",
        503,
        "The agent cannot write on its disk: send it again after `Retry-After`. Whoever operates the agent finds the \
         cause in its log.",
    ),
];

/// Every code.
pub(super) fn codes() -> impl Iterator<Item = &'static str> {
    CODES.iter().map(|(code, ..)| *code)
}

/// What a code of the instance API means and what to do; nothing when it has no such code.
pub(super) fn says(code: &str) -> Option<String> {
    let (code, status, what) = CODES.iter().find(|(one, ..)| *one == code)?;
    Some(format!(
        "{code} (status {status}), as an agent answers an instance: {what} See {MANUAL}."
    ))
}

#[cfg(test)]
mod tests {
    use super::{CODES, codes, says};

    #[test]
    fn the_codes_are_those_of_the_manual() {
        let manual = include_str!("../../../../docs/instances.md");
        let (_, statuses) = manual.split_once("\n## Statuses\n").unwrap();
        let (statuses, _) = statuses.split_once("\n## ").unwrap();
        let rows = statuses.lines().filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            let status: u16 = cells.next()?.parse().ok()?;
            Some((cells.next()?.trim_matches('`').to_owned(), status))
        });
        let known = CODES.map(|(code, status, _)| (code.to_owned(), status));
        assert_eq!(rows.collect::<Vec<_>>(), known);
    }

    #[test]
    fn each_code_says_what_to_do_and_where_to_read_on() {
        for code in codes() {
            let said = says(code).unwrap();
            assert!(
                said.starts_with(code) && said.ends_with("See docs/instances.md."),
                "{said}"
            );
        }
        assert_eq!(says("domain-in-use"), None);
    }
}
