//! Environment variables for the hub; secrets are never shown.

#[cfg(feature = "hub")]
use base64::{Engine, prelude::BASE64_STANDARD};
#[cfg(feature = "hub")]
use percent_encoding::percent_decode_str;
use std::{fmt, fs, path::PathBuf, time::Duration};
use tightrope_train::paths;

/// Address of the hub and place of the cache.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `HF_HUB_CACHE`, or `hub` in `HF_HOME`, or in `~/.cache/huggingface`.
    pub cache: PathBuf,
    /// `HF_ENDPOINT`, or the public hub; may hold a name and a password.
    pub endpoint: Secret,
    /// `HF_TOKEN`, or the file that `HF_TOKEN_PATH` names, or `token` in `HF_HOME`.
    pub token: Option<Secret>,
    /// `HF_HUB_OFFLINE`.
    pub offline: bool,
    /// `HF_HUB_DOWNLOAD_TIMEOUT` in seconds: the time that the hub may be silent.
    pub patience: Duration,
}

/// Text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Environment {
    /// Reads the variables through a function that returns those that are set and not empty.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&str]| names.iter().find_map(|name| variable(name));
        let path = |names: &[&str]| first(names).map(|text| paths::home(text.as_ref()));
        let home = path(&["HF_HOME"]).unwrap_or_else(|| {
            let user = || PathBuf::from(variable("HOME").unwrap_or_default()).join(".cache");
            path(&["XDG_CACHE_HOME"])
                .unwrap_or_else(user)
                .join("huggingface")
        });
        let stored = || {
            let file = path(&["HF_TOKEN_PATH"]).unwrap_or_else(|| home.join("token"));
            fs::read_to_string(file).ok()
        };
        let token = first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).or_else(stored);
        let truth = |value: String| {
            ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
        };
        let seconds = variable("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|text| text.trim().parse().ok());
        Self {
            cache: path(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
                .unwrap_or_else(|| home.join("hub")),
            endpoint: Secret(
                variable("HF_ENDPOINT")
                    .map(|endpoint| endpoint.trim().trim_end_matches('/').to_owned())
                    .unwrap_or_else(|| "https://huggingface.co".into()),
            ),
            token: token
                .map(|token| token.trim().to_owned())
                .filter(|token| !token.is_empty())
                .map(Secret),
            offline: first(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]).is_some_and(truth),
            patience: Duration::from_secs(seconds.filter(|&s| s > 0).unwrap_or(30)),
        }
    }
}

#[cfg(feature = "hub")]
impl Environment {
    /// The endpoint without name and password.
    pub(super) fn url(&self) -> Result<url::Url, String> {
        let mut url = self.parsed()?;
        let cleared = url.set_username("").and_then(|()| url.set_password(None));
        cleared.map_err(|()| NO_ADDRESS.to_owned())?;
        url.set_query(None);
        url.set_fragment(None);
        Ok(url)
    }

    /// Value of the authorization header. A name and a password in the endpoint take precedence
    /// over the token, as in the Python client.
    pub(super) fn authorization(&self) -> Result<Option<ureq::http::HeaderValue>, String> {
        let url = self.parsed()?;
        let value = match (url.username(), url.password(), &self.token) {
            ("", None, None) => return Ok(None),
            ("", None, Some(Secret(token))) => format!("Bearer {token}"),
            (name, password, _) => {
                let mut pair: Vec<u8> = percent_decode_str(name).collect();
                pair.push(b':');
                pair.extend(percent_decode_str(password.unwrap_or_default()));
                format!("Basic {}", BASE64_STANDARD.encode(pair))
            }
        };
        let mut value = ureq::http::HeaderValue::try_from(value).map_err(
            |_| "HF_TOKEN holds a line break or another character that no token has; set it again",
        )?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn parsed(&self) -> Result<url::Url, String> {
        let url = url::Url::parse(&self.endpoint.0).ok();
        url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| NO_ADDRESS.to_owned())
    }
}

#[cfg(feature = "hub")]
const NO_ADDRESS: &str = "HF_ENDPOINT is not an address that begins with https:// or http://";

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::from_variables(|name| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_decides_as_for_the_python_client() {
        let plain = environment(&[("HOME", "/users/a")]);
        assert_eq!(plain.cache, Path::new("/users/a/.cache/huggingface/hub"));
        assert_eq!(plain.endpoint.0, "https://huggingface.co");
        assert!(!plain.offline && plain.token.is_none());
        let all = environment(&[
            ("HOME", "/users/a"),
            ("HF_HOME", "/hf"),
            ("HF_ENDPOINT", "http://mirror/"),
            ("HF_TOKEN", " secret\n"),
            ("HF_HUB_OFFLINE", "1"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "7"),
        ]);
        assert_eq!(all.cache, Path::new("/hf/hub"));
        assert_eq!(all.endpoint.0, "http://mirror");
        assert_eq!(all.token, Some(Secret("secret".into())));
        assert!(all.offline);
        assert_eq!(all.patience, Duration::from_secs(7));
        assert_eq!(
            environment(&[("HF_HUB_CACHE", "/c")]).cache,
            Path::new("/c")
        );
        assert!(!environment(&[("HF_HUB_OFFLINE", "0")]).offline);
    }

    #[test]
    #[cfg(feature = "hub")]
    fn secrets_go_into_the_header_and_nowhere_else() {
        let with = |endpoint: &str, token: &str| {
            environment(&[("HF_ENDPOINT", endpoint), ("HF_TOKEN", token)])
        };
        let header = |e: &Environment| Ok::<_, String>(e.authorization()?.unwrap());
        let token = with("http://mirror/hub", "hf_SECRET");
        assert_eq!(header(&token).unwrap(), "Bearer hf_SECRET");
        assert_eq!(format!("{:?}", header(&token).unwrap()), "Sensitive");
        // RFC 7617's own example, with an escape.
        let password = with(
            "https://Aladdin:open%20sesame@mirror/?sig=SECRET",
            "hf_SECRET",
        );
        assert_eq!(
            header(&password).unwrap(),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        assert_eq!(password.url().unwrap().as_str(), "https://mirror/");
        for wrong in [
            with("http://mirror", "hf_SECRET\nx"),
            with("user:SECRET@mirror", "x"),
            with("file:///SECRET", "x"),
        ] {
            assert!(!header(&wrong).unwrap_err().contains("SECRET"));
            assert!(!format!("{wrong:?}").contains("SECRET"));
        }
    }
}
