//! `[server]`.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use toml::de::DeTable;

use super::{
    ServerConfig,
    error::Mistakes,
    keys::{Keys, Texts, wrong_type},
};

/// The longest retention that can be asked for: ten years.
const RETENTION_DAYS_MAX: u32 = 3650;

const SYNONYMS: &[(&str, &str)] = &[
    ("port", "listen"),
    ("host", "listen"),
    ("address", "listen"),
    ("bind", "listen"),
    ("dir", "data"),
    ("data_dir", "data"),
    ("url", "database"),
    ("database_url", "database"),
    ("cors", "origins"),
    ("allowed_origins", "origins"),
    ("issuer", "provider_issuer"),
    ("audience", "provider_audience"),
    ("jwks", "provider_jwks"),
    ("jwks_url", "provider_jwks"),
    ("signup", "sign_up"),
    ("cert", "tls_cert"),
    ("certificate", "tls_cert"),
    ("key", "tls_key"),
    ("acme", "acme_domains"),
    ("domain", "acme_domains"),
    ("domains", "acme_domains"),
    ("mail", "smtp"),
    ("from", "mail_from"),
    ("audit", "audit_days"),
    ("hsts", "hsts_days"),
    ("retention", "retention_days"),
    ("history", "history_days"),
    ("rate_limit", "messages_per_second in [limits]"),
    ("messages_per_second", "it in [limits]"),
    ("bytes_per_second", "it in [limits]"),
];

pub(super) fn parse(table: &DeTable<'_>, m: &mut Mistakes) -> ServerConfig {
    let mut server = ServerConfig::default();
    let mut keys = Keys::new("server", table);
    if let Some(listen) = address(&mut keys, "listen", m) {
        server.listen = listen;
    }
    server.admin_listen = address(&mut keys, "admin_listen", m);
    if let Some((data, _)) = path(&mut keys, "data", "the folder for the server's files", m) {
        server.data = data;
    }
    server.database = database(&mut keys, m);
    if let Some(origins) = keys.texts("origins", m) {
        server.origins = checked(origins, m, |text| {
            is_origin(text).then_some(()).ok_or((
                "scheme and host of an app's pages, without a path",
                "write for example \"https://app.example.com\"",
            ))
        });
    }
    if let Some(proxies) = keys.texts("trusted_proxies", m) {
        server.trusted_proxies = checked(proxies, m, |text| {
            is_network(text).then_some(()).ok_or((
                "an IP address or network",
                "write for example \"10.0.0.0/8\" or \"::1\"",
            ))
        });
    }
    let mut set = |name, range: RangeInclusive<u32>, what, example, into: &mut u32| {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        if let Some(value) = number(&mut keys, name, range, what, example, m) {
            *into = u32::try_from(value).expect("the range is the field's");
        }
    };
    set(
        "retention_days",
        1..=RETENTION_DAYS_MAX,
        "days",
        "30",
        &mut server.retention_days,
    );
    set(
        "history_days",
        0..=RETENTION_DAYS_MAX,
        "days",
        "30",
        &mut server.history_days,
    );
    set(
        "audit_days",
        1..=RETENTION_DAYS_MAX,
        "days",
        "365",
        &mut server.audit_days,
    );
    set(
        "hsts_days",
        0..=RETENTION_DAYS_MAX,
        "days",
        "365",
        &mut server.hsts_days,
    );
    if let Some(sign_up) = keys.boolean("sign_up", m) {
        server.sign_up = sign_up;
    }
    if let Some(verify_email) = keys.boolean("verify_email", m) {
        server.verify_email = verify_email;
    }
    let mut some = |name, expected| path(&mut keys, name, expected, m).map(|(text, _)| text);
    server.app_url = some("app_url", "the address of a page of your app");
    server.smtp = some("smtp", "a mail server, as smtps://USER@HOST");
    server.smtp_password_file = some("smtp_password_file", "a file with the password");
    server.mail_from = some("mail_from", "a sender, as App <no-reply@example.com>");
    let mut some = |name, expected| path(&mut keys, name, expected, m).map(|(text, _)| text);
    server.provider_issuer = some("provider_issuer", "what stands in tokens as `iss`");
    server.provider_audience = some("provider_audience", "what stands in tokens as `aud`");
    server.provider_jwks = some("provider_jwks", "the address of the provider's keys");
    server.provider_secret_file = some("provider_secret_file", "a file with the secret");
    let mut some = |name, expected| path(&mut keys, name, expected, m).map(|(text, _)| text);
    server.tls_cert = some("tls_cert", "a file with the certificate, in PEM");
    server.tls_key = some("tls_key", "a file with its private key, in PEM");
    if let Some(domains) = keys.texts("acme_domains", m) {
        server.acme_domains = checked(domains, m, |text| {
            is_domain(text).then_some(()).ok_or((
                "a name that leads to this server, in small letters",
                "write for example \"sync.example.com\"",
            ))
        });
    }
    let mut some = |name, expected| path(&mut keys, name, expected, m).map(|(text, _)| text);
    server.acme_contact = some("acme_contact", "a mail address, as ops@example.com");
    if let Some(directory) = some("acme_directory", "the address of an ACME directory") {
        server.acme_directory = directory;
    }
    server.acme_ca_file = some("acme_ca_file", "a file with a certificate, in PEM");
    if let Some(managed) = managed(&mut keys, m) {
        server.managed = managed;
    }
    keys.finish(SYNONYMS, m);
    server
}

fn address(keys: &mut Keys<'_, '_>, name: &'static str, m: &mut Mistakes) -> Option<String> {
    let (_, node) = keys.take(name)?;
    let path = keys.path(name);
    let expected = "an address and a port";
    let suggestion = "write for example \"127.0.0.1:7117\"";
    let Some(text) = node.get_ref().as_str() else {
        wrong_type(node, &path, expected, suggestion, m);
        return None;
    };
    if is_address(text) {
        return Some(text.to_owned());
    }
    m.add(
        node.span().start,
        format!("{path} is `{text}`"),
        expected,
        suggestion,
    );
    None
}

/// The text and where it is.
fn path(
    keys: &mut Keys<'_, '_>,
    name: &'static str,
    expected: &str,
    m: &mut Mistakes,
) -> Option<(String, usize)> {
    let (_, node) = keys.take(name)?;
    let path = keys.path(name);
    let text = super::keys::text(node, &path, m)?;
    if text.trim().is_empty() || text.contains('\0') {
        m.add(
            node.span().start,
            format!("{path} is empty"),
            expected,
            "take it out or fill it in",
        );
        return None;
    }
    Some((text.to_owned(), node.span().start))
}

/// A file; an address would otherwise become a file of that name.
fn database(keys: &mut Keys<'_, '_>, m: &mut Mistakes) -> Option<String> {
    let (text, at) = path(keys, "database", "a file", m)?;
    let Some((scheme, _)) = text.split_once("://") else {
        return Some(text);
    };
    let message = match scheme {
        "postgres" | "postgresql" => {
            "server.database is in PostgreSQL, which this version cannot use yet".to_owned()
        }
        other => format!("server.database is an address of `{other}`"),
    };
    let suggestion = "write the path of an SQLite file, or leave it out for one in `data`";
    m.add(at, message, "a file", suggestion);
    None
}

/// The texts, if `check` finds nothing wrong with any of them.
fn checked(
    texts: Texts<'_>,
    m: &mut Mistakes,
    check: impl Fn(&str) -> Result<(), (&'static str, &'static str)>,
) -> Vec<String> {
    let mut good = Vec::new();
    for (text, span) in texts {
        match check(text) {
            Ok(()) => good.push(text.to_owned()),
            Err((expected, suggestion)) => {
                m.add(
                    span.start,
                    format!("`{text}` cannot be used here"),
                    expected,
                    suggestion,
                );
            }
        }
    }
    good
}

/// A name as a certificate has it: no wildcards, whose proof needs more than an open port.
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        (1..=63).contains(&label.len())
            && label.chars().all(is_inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.parse::<IpAddr>().is_err() && text.split('.').all(is_label)
}

/// A whole number of `what` in this range.
pub(super) fn number(
    keys: &mut Keys<'_, '_>,
    name: &'static str,
    range: RangeInclusive<u64>,
    what: &str,
    example: &str,
    m: &mut Mistakes,
) -> Option<u64> {
    let (_, node) = keys.take(name)?;
    let path = keys.path(name);
    let expected = format!(
        "a number of {what} from {} to {}",
        range.start(),
        range.end()
    );
    let suggestion = format!("write for example {example}");
    let Some(number) = node.get_ref().as_integer() else {
        wrong_type(node, &path, &expected, &suggestion, m);
        return None;
    };
    let value = u64::from_str_radix(&number.as_str().replace('_', ""), number.radix());
    let value = value.ok().filter(|value| range.contains(value));
    if value.is_none() {
        let message = format!("{path} is {}", number.as_str());
        m.add(node.span().start, message, expected, suggestion);
    }
    value
}

fn managed(keys: &mut Keys<'_, '_>, m: &mut Mistakes) -> Option<bool> {
    let (_, node) = keys.take("schema")?;
    match super::keys::text(node, "server.schema", m)? {
        "managed" => Some(true),
        "external" => Some(false),
        other => {
            m.add(
                node.span().start,
                format!("server.schema is `{other}`"),
                "`managed` or `external`",
                "write \"managed\" to have tables created from this file, \"external\" to have \
                 them only read",
            );
            None
        }
    }
}

/// `host:port`, with an IPv6 host in brackets.
fn is_address(text: &str) -> bool {
    if text.parse::<SocketAddr>().is_ok() {
        return true;
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    port.parse::<u16>().is_ok() && is_host(host)
}

fn is_host(host: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    !host.is_empty() && host.bytes().all(good)
}

fn is_origin(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        is_host(rest)
            || is_address(rest)
            || rest.strip_prefix('[').is_some_and(|v6| {
                v6.strip_suffix(']')
                    .is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok())
            })
    })
}

fn is_network(text: &str) -> bool {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return false;
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    bits.is_none_or(|bits| bits.parse::<u8>().is_ok_and(|bits| bits <= most))
}
