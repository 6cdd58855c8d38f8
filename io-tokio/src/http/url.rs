//! `http://host[:port]/path`, and nothing else of what a URL may be.

use std::fmt;

/// A URL that we can dial: a host, a port, a path with its query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    /// An IPv6 address stands in brackets.
    host: String,
    port: u16,
    path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error(
        "TLS is not spoken by this version: use {plain}:// to a broker on this host or network, or \
         a proxy that ends TLS in front of it"
    )]
    Tls { plain: &'static str },
    #[error("expected {0}://host[:port]/path")]
    Scheme(&'static str),
    #[error("the URL has no usable host, port or path")]
    Malformed,
}

impl HttpUrl {
    /// # Errors
    /// If `text` is not an `http://` URL with a host.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        Self::parse_with_scheme(text, "http", "https")
    }

    pub(crate) fn parse_with_scheme(
        text: &str,
        plain: &'static str,
        over_tls: &'static str,
    ) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme(plain))?;
        if scheme.eq_ignore_ascii_case(over_tls) {
            return Err(UrlError::Tls { plain });
        }
        if !scheme.eq_ignore_ascii_case(plain) {
            return Err(UrlError::Scheme(plain));
        }
        let path_at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(path_at);
        let (host, port) = split_port(authority)?;
        if host.is_empty() || host.contains('@') || !text.is_ascii() || text.contains(' ') {
            return Err(UrlError::Malformed);
        }
        let path = path.split('#').next().unwrap_or_default();
        let path = match path.as_bytes().first() {
            Some(b'/') => path.to_owned(),
            _ => format!("/{path}"),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            path,
        })
    }

    /// `host:port`.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// With its query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.path)
    }
}

const DEFAULT_PORT: u16 = 80;

fn split_port(authority: &str) -> Result<(&str, u16), UrlError> {
    // A colon inside the brackets of an IPv6 address is not a port's.
    let after_host = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[after_host..].rfind(':') {
        None => Ok((authority, DEFAULT_PORT)),
        Some(at) => {
            let (host, port) = authority.split_at(after_host + at);
            let port = port[1..].parse().map_err(|_| UrlError::Malformed)?;
            Ok((host, port))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_hosts_ports_paths_and_queries() {
        let parts = |text| HttpUrl::parse(text).map(|url| (url.authority(), url.path().to_owned()));
        assert_eq!(
            parts("http://a.b:7900/x?y=1#z"),
            Ok(("a.b:7900".into(), "/x?y=1".into()))
        );
        assert_eq!(
            parts("HTTP://[::1]:80"),
            Ok(("[::1]:80".into(), "/".into()))
        );
        assert_eq!(
            parts("http://[::1]/p"),
            Ok(("[::1]:80".into(), "/p".into()))
        );
        assert_eq!(parts("http://h?q"), Ok(("h:80".into(), "/?q".into())));
    }

    #[test]
    fn refuses_tls_by_name_and_everything_else_by_shape() {
        assert_eq!(
            HttpUrl::parse("https://a/"),
            Err(UrlError::Tls { plain: "http" })
        );
        for bad in [
            "",
            "a",
            "ftp://a/",
            "http://",
            "http://a:b/",
            "http://a b/",
            "http://u@h/",
        ] {
            assert!(HttpUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
