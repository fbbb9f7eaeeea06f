//! What an object store's refusals mean, as Velero passes them on: error codes of the S3 API and texts of Go's net and
//! crypto packages.

/// A refusal and what helps against it.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the message holds.
    part: &'static str,
    /// Waiting changes nothing.
    pub lasting: bool,
    pub hint: &'static str,
}

const fn lasting(part: &'static str, hint: &'static str) -> Refusal {
    Refusal { part, lasting: true, hint }
}

const fn passing(part: &'static str, hint: &'static str) -> Refusal {
    Refusal { part, lasting: false, hint }
}

const CHECKSUMS: &str = "this store refuses checksum headers: set `backup.location.checksumAlgorithm: \"\"`";

/// The first that matches speaks.
const REFUSALS: [Refusal; 14] = [
    lasting(
        "InvalidAccessKeyId",
        "the store does not know the access key: correct aws_access_key_id in the Secret cloud-credentials of \
         `backup.secrets`",
    ),
    lasting(
        "SignatureDoesNotMatch",
        "the secret key is wrong: correct aws_secret_access_key in the Secret cloud-credentials of `backup.secrets`",
    ),
    lasting("NoSuchBucket", "make the bucket, or correct `backup.location.bucket`"),
    passing(
        "AccessDenied",
        "the key lacks rights on the bucket: allow s3:ListBucket, GetObject, PutObject, DeleteObject",
    ),
    passing(
        "Forbidden",
        "the key lacks rights on the bucket, or is wrong: check the Secret cloud-credentials",
    ),
    passing(
        "NotFound",
        "make the bucket, or correct `backup.location.bucket` (and `pathStyle` for S3 clones)",
    ),
    passing("RequestTimeTooSkewed", "a node's clock is off: point Talos' time servers at a working one"),
    lasting("XAmzContentSHA256Mismatch", CHECKSUMS),
    lasting("Unsupported header", CHECKSUMS),
    passing("x509", "Velero does not trust the store's certificate: use one of a public authority"),
    passing(
        "no such host",
        "the store's name can't be resolved in the cluster: correct `backup.location.url`, or the DNS",
    ),
    passing(
        "connection refused",
        "nothing listens there: check `backup.location.url`, and that the store is running",
    ),
    passing(
        "i/o timeout",
        "`backup.location.url` can't be reached from the cluster: check routes and firewalls",
    ),
    lasting(
        "invalid keys",
        "the plugin is too old for the location's settings: take the plugin that fits this Velero",
    ),
];

/// What a message of Velero's about its location means, if it is known.
pub fn refusal(message: &str) -> Option<&'static Refusal> {
    REFUSALS.iter().find(|refusal| message.contains(refusal.part))
}

/// The message without what is new in every answer: the ids of request and host.
pub fn steady(message: &str) -> String {
    let fresh = |part: &&str| !part.starts_with("RequestID: ") && !part.starts_with("HostID: ");
    message.split(", ").filter(fresh).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Velero v1.18.3 told it of a real store with a wrong key.
    const WRONG_KEY: &str = "BackupStorageLocation \"default\" is unavailable: rpc error: code = Unknown desc = operation \
        error S3: ListObjectsV2, https response error StatusCode: 403, RequestID: RG4W2R56NN8P6XRO, HostID: \
        eA/Oxrf+aoH177=, api error SignatureDoesNotMatch: The request signature we calculated does not match the \
        signature you provided. Check your key and signing method.";

    #[test]
    fn a_wrong_key_is_known_and_reads_the_same_each_time() {
        assert!(refusal(WRONG_KEY).is_some_and(|r| r.lasting && r.hint.contains("aws_secret_access_key")));
        let steady = steady(WRONG_KEY);
        assert!(steady.contains("StatusCode: 403, api error SignatureDoesNotMatch: The"), "{steady}");
        assert_eq!(refusal("something new"), None);
    }
}
