//! What users write: paths, URIs and options, and the secrets in them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use url::Url;

/// Settings of object stores, such as `endpoint`, `region`, `access_key_id` or `allow_http`, by the names that the crate
/// `object_store` gives them. Values never appear in `Debug` output.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<String, String>);

impl Options {
    /// The option that lets schemes be used that are not tested against a real server.
    pub const EXPERIMENTAL: &str = "experimental";

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let settings = self.0.iter().filter(|(key, _)| *key != Self::EXPERIMENTAL);
        settings.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    fn allow_experimental(&self) -> bool {
        self.0.get(Self::EXPERIMENTAL).is_some_and(|value| value == "true")
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Options {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Replaces secrets in texts that others wrote.
#[derive(Clone)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Of these options and of the environment variables that object stores read.
    pub(super) fn of(options: &Options) -> Self {
        let given = options.iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        let clouds = ["AWS_", "AZURE_", "GOOGLE_"];
        let found = std::env::vars().filter(|(name, _)| clouds.iter().any(|cloud| name.starts_with(cloud)));
        let mut secrets: Vec<String> =
            given.chain(found).filter(|(name, value)| is_secret(name, value)).map(|(_, value)| value).collect();
        // The longest first: one may be a part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets)
    }

    /// The text without secrets and without the queries of URLs, which may hold signatures.
    pub(super) fn redact(&self, text: &str) -> String {
        let mut out = self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "[secret]"));
        while let Some(start) = out.find("://").and_then(|scheme| find_query(&out, scheme)) {
            let end =
                out[start..].find(|c: char| c.is_whitespace() || c == ')').map_or(out.len(), |length| start + length);
            out.replace_range(start..end, "");
        }
        out
    }
}

/// Where the query of the first URL that has one begins.
fn find_query(text: &str, from: usize) -> Option<usize> {
    let question = text[from..].find('?')? + from;
    let scheme = text[..question].rfind("://")?;
    let same_url = !text[scheme..question].contains(char::is_whitespace);
    if same_url { Some(question) } else { find_query(text, question + 1) }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

fn is_secret(name: &str, value: &str) -> bool {
    const MARKS: [&str; 7] = ["key", "secret", "token", "password", "sas", "credential", "authorization"];
    let name = name.to_ascii_lowercase();
    value.len() >= 4 && !matches!(value, "true" | "false") && MARKS.iter().any(|mark| name.contains(mark))
}

/// A URI or an option can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{uri}: {problem}")]
pub struct UriError {
    /// As it was written, without what could be a secret.
    pub uri: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

/// Which kind of object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    S3,
    Google,
    Azure,
}

/// What a URI names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Directory(PathBuf),
    Bucket { scheme: Scheme, uri: String, bucket: String, prefix: String },
}

impl Place {
    /// Reads a path or a URI.
    pub(crate) fn parse(text: &str, options: &Options) -> Result<Self, UriError> {
        let Some((scheme, _)) = text.split_once("://") else {
            let refuse = |problem: String| UriError { uri: text.to_owned(), problem };
            if text.is_empty() {
                return Err(refuse("an empty path names no directory".into()));
            }
            // The working directory may change later; what is meant is the one of now.
            let path = std::path::absolute(text).map_err(|error| refuse(error.to_string()))?;
            return Ok(Self::Directory(path));
        };
        let refuse = |problem: &str| UriError { uri: without_secrets(text), problem: problem.to_owned() };
        let url = Url::parse(text).map_err(|error| refuse(&error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(refuse(
                "a URI has no user, query or fragment; credentials go into `storage` or the environment",
            ));
        }
        let (scheme, experimental) = match scheme {
            "file" => {
                let path = url.to_file_path().map_err(|()| refuse("a file URI has an absolute path and no host"))?;
                return Ok(Self::Directory(path));
            }
            "s3" | "s3a" => (Scheme::S3, false),
            "gs" => (Scheme::Google, true),
            "az" => (Scheme::Azure, false),
            _ => return Err(refuse("use a path, file://, s3://, gs:// or az://")),
        };
        if experimental && !options.allow_experimental() {
            let problem = "this kind of storage is experimental: to use it nevertheless, set the storage option \
                           `experimental` to `true`";
            return Err(refuse(problem));
        }
        let bucket = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| refuse("the bucket is missing"))?;
        let (uri, bucket) = (text.trim_end_matches('/').to_owned(), bucket.to_owned());
        let prefix = url.path().trim_matches('/').to_owned();
        Ok(Self::Bucket { scheme, uri, bucket, prefix })
    }
}

/// The scheme and the host alone.
fn without_secrets(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or((text, ""));
    let host = rest.split(['/', '?', '#']).next().unwrap_or("");
    format!("{scheme}://{}", host.rsplit('@').next().unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().copied().collect()
    }

    #[test]
    fn paths_and_uris_name_places() {
        let none = Options::default();
        let parse = |text| Place::parse(text, &none);
        assert_eq!(parse("/a/b"), Ok(Place::Directory("/a/b".into())));
        assert_eq!(parse("file:///a/b%20c"), Ok(Place::Directory("/a/b c".into())));
        assert_eq!(parse("a"), Ok(Place::Directory(std::env::current_dir().unwrap().join("a"))));
        let bucket = |scheme, uri: &str, prefix: &str| {
            Ok(Place::Bucket { scheme, uri: uri.into(), bucket: "b".into(), prefix: prefix.into() })
        };
        assert_eq!(parse("s3://b"), bucket(Scheme::S3, "s3://b", ""));
        assert_eq!(parse("s3://b/c/d/"), bucket(Scheme::S3, "s3://b/c/d", "c/d"));
        let experimental = options(&[("experimental", "true")]);
        assert_eq!(Place::parse("gs://b/c", &experimental), bucket(Scheme::Google, "gs://b/c", "c"));
        assert_eq!(Place::parse("az://b/c", &experimental), bucket(Scheme::Azure, "az://b/c", "c"));
    }

    #[test]
    fn what_can_not_be_used_says_why_and_tells_no_secret() {
        let none = Options::default();
        for (text, part) in [
            ("", "empty path"),
            ("ftp://host/dir", "use a path"),
            ("s3:///prefix", "bucket"),
            ("file://host/dir", "absolute path"),
            ("gs://b/c", "`experimental` to `true`"),
            ("s3://user:hunter2@b/c", "credentials go into"),
            ("az://b/c?sig=hunter2", "credentials go into"),
        ] {
            let error = Place::parse(text, &none).unwrap_err();
            assert!(error.to_string().contains(part), "{text}: {error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn secrets_leave_texts() {
        let options =
            options(&[("secret_access_key", "hunter2hunter2"), ("region", "eu-central-1"), ("token", "hunter2")]);
        assert!(!format!("{options:?}").contains("hunter2"));
        let secrets = Secrets::of(&options);
        assert!(!format!("{secrets:?}").contains("hunter2"));
        let text = "GET https://host/a?X-Sig=1&b=2 in eu-central-1 (hunter2 is not hunter2hunter2) http://h/b?c d ? e";
        let expected = "GET https://host/a in eu-central-1 ([secret] is not [secret]) http://h/b d ? e";
        assert_eq!(secrets.redact(text), expected);
    }
}
