//! Explains faults of the hub to users, with advice.

use super::{Hub, Kind, client::Fault};
use crate::source::SourceError;
use ureq::http::{HeaderMap, StatusCode};

impl Hub {
    /// Variables of the environment that cannot be used.
    pub(super) fn misconfigured(&self, id: &str, reason: String) -> SourceError {
        SourceError::Hub {
            model: id.to_owned(),
            endpoint: self.shown(),
            reason,
            remedy: "or give the path of a folder".into(),
        }
    }

    pub(super) fn failure(
        &self,
        kind: Kind,
        id: &str,
        revision: &str,
        fault: Fault,
    ) -> SourceError {
        let (reason, remedy) = match fault {
            Fault::Stopped => {
                return SourceError::Stopped {
                    model: id.to_owned(),
                };
            }
            Fault::Passing(reason) => (
                reason,
                "check the network and HF_ENDPOINT, or give the path of a folder; what has come \
                 is kept, and the same command goes on from there"
                    .into(),
            ),
            Fault::Wrong(reason) => (
                reason,
                "this is not how the hub behaves: check HF_ENDPOINT, or give the path of a folder"
                    .into(),
            ),
            Fault::Status(status, headers) => self.refusal(kind, id, revision, status, &headers),
        };
        SourceError::Hub {
            model: id.to_owned(),
            endpoint: self.shown(),
            reason,
            remedy,
        }
    }

    /// Explains a refusal by the status and by the hub's own code.
    fn refusal(
        &self,
        kind: Kind,
        id: &str,
        revision: &str,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> (String, String) {
        let code = headers.get("x-error-code").map(|code| code.as_bytes());
        let signed_in = self.environment.token.is_some();
        let root = kind.root().map_or(String::new(), |root| format!("{root}/"));
        let page = format!("{}/{root}{id}", self.shown());
        let (reason, remedy) = match (code, status.as_u16()) {
            (Some(b"GatedRepo"), _) if signed_in => (
                "the model is gated, and the account of HF_TOKEN has no access to it",
                format!("ask for access on {page}"),
            ),
            (Some(b"GatedRepo"), _) => (
                "the model is gated",
                format!("ask for access on {page}, and set HF_TOKEN to a token of that account"),
            ),
            (Some(b"RevisionNotFound"), _) => (
                "the model has no such revision",
                format!("it has no branch, tag or commit `{revision}`; look on {page}"),
            ),
            (_, 401 | 403) if signed_in => (
                "there is no such model, or the account of HF_TOKEN has no access to it",
                format!(
                    "check the spelling of the id and HF_TOKEN, and accept the terms on {page}"
                ),
            ),
            (_, 401 | 403) => (
                "there is no such model, or it is not public",
                format!(
                    "check the spelling of the id; if the model exists, accept its terms on {page} \
                     and set HF_TOKEN"
                ),
            ),
            (_, 404) => (
                "there is no such model, revision or file",
                "check the spelling of the id and the revision".into(),
            ),
            (_, 429) => (
                "too many requests",
                "wait some minutes; with HF_TOKEN set more are allowed".into(),
            ),
            _ => ("the server refuses", "check HF_ENDPOINT".into()),
        };
        let reason = reason.replace("model", kind.noun());
        let remedy = remedy.replace("if the model", &format!("if the {}", kind.noun()));
        (format!("{reason} (status {})", status.as_u16()), remedy)
    }

    /// The endpoint without secrets.
    fn shown(&self) -> String {
        let url = self.environment.url();
        url.map_or_else(
            |_| "HF_ENDPOINT".into(),
            |url| url.as_str().trim_end_matches('/').into(),
        )
    }
}
