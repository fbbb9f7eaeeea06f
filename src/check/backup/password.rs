//! The password of the backup repositories.

use k8s_openapi::api::core::v1::Secret;
use secrecy::SecretString;

use crate::plan::stack::{DIFFERS, OLD_AND_NEW, same};

/// The public password that Velero makes when it finds none (velero.io, file-system backup).
const PUBLIC_PASSWORD: &[u8] = b"static-passw0rd";

/// What is wrong with the live password, and what helps; `wanted` is the file's, when it could be read.
pub(super) fn fault(
    secret: Option<&Secret>,
    wanted: Option<&SecretString>,
) -> Option<(&'static str, &'static str)> {
    let hint = "put a Secret velero-repo-credentials with key `repository-password` of your own into \
                `backup.secrets` (SOPS) before the first backup";
    let Some(secret) = secret else { return Some(("is missing: Velero would use its public default", hint)) };
    match secret.data.as_ref().and_then(|data| data.get("repository-password")) {
        Some(password) if password.0.trim_ascii() == PUBLIC_PASSWORD => Some((
            "holds Velero's public default password: anybody who can read the bucket can read the backups",
            "a repository's password can't be changed: make a new bucket or prefix, put your own password into \
             `backup.secrets` (SOPS), delete the Secret and the BackupRepository objects, and back up again",
        )),
        Some(password) if !password.0.trim_ascii().is_empty() => {
            let differs = wanted.is_some_and(|wanted| !same(wanted, &password.0));
            differs.then_some((DIFFERS, OLD_AND_NEW))
        }
        _ => Some(("has no `repository-password`", hint)),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_repositorys_password_must_be_ones_own_and_is_never_shown() {
        let secret = |data: Value| -> Secret {
            serde_json::from_value(json!({ "metadata": {}, "data": data })).unwrap()
        };
        assert!(fault(Some(&secret(json!({ "repository-password": "b3duIHNlY3JldA==" }))), None).is_none());
        for (given, word) in [
            (None, "missing"),
            (Some(secret(json!({}))), "no `repository-password`"),
            (Some(secret(json!({ "repository-password": "" }))), "no `repository-password`"),
            (Some(secret(json!({ "repository-password": "c3RhdGljLXBhc3N3MHJk" }))), "public default"),
            (Some(secret(json!({ "repository-password": "c3RhdGljLXBhc3N3MHJkCg==" }))), "public default"),
        ] {
            let (why, hint) = fault(given.as_ref(), None).unwrap();
            assert!(why.contains(word) && hint.contains("backup.secrets"), "{why}");
            assert!(!why.contains("passw0rd") && !hint.contains("passw0rd"));
        }
    }

    #[test]
    fn a_live_password_that_is_not_the_files_is_a_fault_that_shows_neither() {
        let live: Secret = serde_json::from_value(
            json!({ "metadata": {}, "data": { "repository-password": "b3duIHNlY3JldA==" } }),
        )
        .unwrap();
        // Velero cuts white space at both ends off.
        for (wanted, good) in
            [("own secret", true), ("own secret\n", true), ("own secre", false), ("other secret", false)]
        {
            let found = fault(Some(&live), Some(&SecretString::from(wanted)));
            assert_eq!(found.is_none(), good, "{wanted:?}");
            if let Some((why, hint)) = found {
                assert!(
                    why.contains("is not the one of the file") && hint.contains("old backups"),
                    "{why}: {hint}"
                );
                assert!(!format!("{why}{hint}").contains("secret\n") && !why.contains("own secret"));
            }
        }
    }
}
