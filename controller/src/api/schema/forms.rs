//! The forms of names and texts as patterns: each says exactly what the parser of its kind takes.

use serde_json::{Value, json};

use super::pattern;

/// A quantity of cpu: `500m`, `2`, `1.5`.
const CPU: &str = r"^([1-9][0-9]{0,8}m|[1-9][0-9]{0,5}(\.[0-9]{1,3})?|0\.([1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9]))$";
/// A quantity of bytes below a petabyte: `512Mi`, `1G`, `1048576`.
const BYTES: &str = "^([1-9][0-9]{0,14}|[1-9][0-9]{0,11}(Ki|k)|[1-9][0-9]{0,8}(Mi|M)|[1-9][0-9]{0,5}(Gi|G)|[1-9][0-9]{0,2}(Ti|T))$";
/// A host name of RFC 1123 with at least two labels.
const HOST_NAME: &str = r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+$";
/// Something to see and no control character.
const LINE: &str = r"^[^\u0000-\u001f\u007f-\u009f]*[^\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\u0000-\u001f\u007f-\u009f]*$";
/// No control character.
const NO_CONTROL: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

/// A time as requests give it, of the years 2000 to 8999.
pub(in crate::api) fn moment() -> Value {
    const LONG: &str = "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])";
    const SHORT: &str = "(0[469]|11)-(0[1-9]|[12][0-9]|30)";
    const FEBRUARY: &str = "02-(0[1-9]|1[0-9]|2[0-8])";
    const LEAP_DAY: &str =
        "([2-8][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[357][26])00)-02-29";
    const TIME: &str = r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,3})?";
    const ZONE: &str = "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
    let date = format!("([2-8][0-9]{{3}}-({LONG}|{SHORT}|{FEBRUARY})|{LEAP_DAY})");
    json!({"type": "string", "format": "date-time", "pattern": format!("^{date}{TIME}{ZONE}$")})
}

/// Lower-case letters, digits and inner hyphens; `characters_max` is at least 2.
pub(in crate::api) fn label(characters_max: usize) -> Value {
    let inner = characters_max.saturating_sub(2);
    pattern(&format!("^[a-z0-9]([a-z0-9-]{{0,{inner}}}[a-z0-9])?$"))
}

/// The id of a tenant.
pub(in crate::api) fn tenant_id() -> Value {
    pattern("^[a-z0-9][a-z0-9-]{0,27}-[0-9a-f]{8}$")
}

/// The id of a deployment.
pub(in crate::api) fn deployment_id() -> Value {
    label(49)
}

/// The id of an agent.
pub(in crate::api) fn agent_id() -> Value {
    label(63)
}

/// The id of a region; the served document lists those that there are.
pub(in crate::api) fn region_id() -> Value {
    label(40)
}

/// The public name of a token.
pub(in crate::api) fn token_id() -> Value {
    pattern("^[0-9a-f]{16}$")
}

/// The name of a release.
pub(in crate::api) fn release_name() -> Value {
    label(40)
}

/// The version of a release.
pub(in crate::api) fn release_version() -> Value {
    pattern("^[A-Za-z0-9_+][A-Za-z0-9._+-]{0,63}$")
}

/// Name and version of a release.
pub(in crate::api) fn release_key() -> Value {
    pattern("^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?:[A-Za-z0-9_+][A-Za-z0-9._+-]{0,63}$")
}

/// A component, port or volume of a release.
pub(in crate::api) fn part_name() -> Value {
    label(30)
}

/// A SHA-256 digest.
pub(in crate::api) fn digest() -> Value {
    pattern("^sha256:[0-9a-fA-F]{64}$")
}

/// A chain of the audit.
pub(in crate::api) fn stream() -> Value {
    pattern(
        "^(platform|tenant/[a-z0-9][a-z0-9-]{0,27}-[0-9a-f]{8}|agent/[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[0-9a-f]{32}|(usage|events|minutes)/[a-z0-9]([a-z0-9-]{0,47}[a-z0-9])?)$",
    )
}

/// A host name.
pub(in crate::api) fn host_name() -> Value {
    json!({"type": "string", "pattern": HOST_NAME, "maxLength": 253})
}

/// A text of one line that shows something.
pub(in crate::api) fn line(characters_max: usize) -> Value {
    json!({"type": "string", "pattern": LINE, "maxLength": characters_max})
}

/// A text of one line, which may be empty.
pub(in crate::api) fn note(characters_max: usize) -> Value {
    json!({"type": "string", "pattern": NO_CONTROL, "maxLength": characters_max})
}

/// A text of one line that no answer repeats.
pub(in crate::api) fn secret(characters_max: usize) -> Value {
    json!({
        "type": "string", "pattern": NO_CONTROL, "minLength": 1, "maxLength": characters_max,
        "writeOnly": true,
    })
}

/// A quantity of cpu: a text, or a whole number of cpus.
pub(in crate::api) fn cpu() -> Value {
    json!({"anyOf": [pattern(CPU), {"type": "integer", "minimum": 1, "maximum": 999_999}]})
}

/// A quantity of bytes: a text, or a number of bytes.
pub(in crate::api) fn bytes() -> Value {
    json!({"anyOf": [pattern(BYTES), {"type": "integer", "minimum": 1, "maximum": 999_999_999_999_999_u64}]})
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use dotmac_domain::audit::Stream;
    use dotmac_protocol::{digest::Digest, ids};
    use serde_json::{Value, json};

    use super::{
        agent_id, deployment_id, digest, part_name, region_id, release_name, release_version,
        stream, tenant_id, token_id,
    };

    const TEXTS: &[&str] = &[
        "",
        "a",
        "a-",
        "-a",
        "a-b",
        "A",
        "a_b",
        "a.b",
        ".a",
        "+a",
        "_a",
        "a\n",
        "é",
        "0",
        "a/b",
        "platform",
        "tenant/x",
        "tenant/demo-isp-0190a1b2",
        "agent/local-1/00000000000000000000000000000000",
        "agent/a/0",
        "usage/demo-isp-0190a1b2",
        "events/demo-isp-0190a1b2-staging",
        "minutes/a-",
        "minutes/",
        "demo-isp-0190a1b2",
        "demo-isp-0190A1B2",
        "demo--0190a1b2",
        "-0190a1b2",
        "demo-isp-0190a1b",
        "0123456789abcdef",
        "0123456789ABCDEF",
        "sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "sha256:00",
        "sha256:000000000000000000000000000000000000000000000000000000000000000G",
        "sha256:ABCDEF0000000000000000000000000000000000000000000000000000000000",
        "SHA256:0000000000000000000000000000000000000000000000000000000000000000",
    ];

    fn agrees<T: FromStr>(schema: &Value) {
        let validator = jsonschema::draft202012::new(schema).unwrap();
        let long =
            [29, 30, 31, 37, 38, 40, 41, 49, 50, 63, 64, 65].map(|length| "a".repeat(length));
        let tenants = [28, 29].map(|length| format!("{}-0190a1b2", "a".repeat(length)));
        let texts = TEXTS
            .iter()
            .map(ToString::to_string)
            .chain(long)
            .chain(tenants);
        for text in texts {
            let parses = text.parse::<T>().is_ok();
            let name = std::any::type_name::<T>();
            assert_eq!(validator.is_valid(&json!(text)), parses, "{name} {text:?}");
        }
    }

    #[test]
    fn every_form_takes_what_its_parser_takes() {
        agrees::<ids::TenantId>(&tenant_id());
        agrees::<ids::DeploymentId>(&deployment_id());
        agrees::<ids::AgentId>(&agent_id());
        agrees::<ids::RegionId>(&region_id());
        agrees::<ids::TokenId>(&token_id());
        agrees::<ids::ReleaseName>(&release_name());
        agrees::<ids::ReleaseVersion>(&release_version());
        agrees::<ids::PartName>(&part_name());
        agrees::<Digest>(&digest());
        agrees::<Stream>(&stream());
    }
}
