//! What an object store's refusals mean, as Velero passes them on and as our own client words them: error codes of the S3
//! API, and texts of Go's net and crypto packages, of rustls and of the system. One table for all who tell them.

use super::velero::kinds::BackupStorageLocation;
use crate::model::said::{UNKNOWN_AUTHORITY, Words, words};

/// What the store was asked with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreAddress {
    pub bucket: String,
    pub region: String,
    /// Nothing for AWS.
    pub url: Option<String>,
    pub path_style: bool,
    /// The checksum headers are switched off.
    pub no_checksums: bool,
    /// It is known by certificates of its own.
    pub ca: bool,
}

impl StoreAddress {
    /// As a BackupStorageLocation says it.
    pub fn of(location: &BackupStorageLocation) -> Self {
        let store = location.spec.object_storage.clone().unwrap_or_default();
        let config = |key: &str| location.spec.config.as_ref()?.get(key);
        Self {
            bucket: store.bucket.unwrap_or_default(),
            region: config("region").cloned().unwrap_or_default(),
            url: config("s3Url").cloned(),
            path_style: config("s3ForcePathStyle").is_some_and(|set| set == "true"),
            no_checksums: config("checksumAlgorithm").is_some_and(String::is_empty),
            ca: store.ca_cert.is_some(),
        }
    }

    /// A store of one's own is asked for a host that begins with the bucket's name.
    fn by_host(&self) -> bool {
        self.url.is_some() && !self.path_style
    }

    /// The name that was looked up (golang/go src/net/net.go, DNSError) begins with the bucket's: then the address has no path.
    fn looks_bucket_up(&self, message: &str) -> bool {
        let host = message.split("lookup ").nth(1).and_then(|rest| rest.split([':', ' ', ',']).next());
        let host = host.filter(|host| !self.path_style && !host.ends_with(".amazonaws.com"));
        host.is_some_and(|host| {
            let without_path = |end: &str| message.contains(&format!("://{host}/{end}"));
            host.starts_with(&format!("{}.", self.bucket)) || without_path("\"") || without_path("?")
        })
    }
}

/// What helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// Waiting changes nothing.
    pub lasting: bool,
    pub hint: String,
}

/// A kind of refusal.
struct Refusal {
    /// What the message holds, at least one of them.
    parts: &'static [Words],
    /// And what must be so beside.
    when: fn(&StoreAddress, &str) -> bool,
    lasting: bool,
    hint: &'static str,
}

const fn always(_: &StoreAddress, _: &str) -> bool {
    true
}

const fn lasting(parts: &'static [Words], hint: &'static str) -> Refusal {
    Refusal { parts, when: always, lasting: true, hint }
}

const fn passing(parts: &'static [Words], hint: &'static str) -> Refusal {
    Refusal { parts, when: always, lasting: false, hint }
}

impl Refusal {
    const fn when(self, when: fn(&StoreAddress, &str) -> bool) -> Self {
        Self { when, ..self }
    }
}

// Where more than one of them is written.
const AWS: &str = "docs.aws.amazon.com, AmazonS3 API Reference, Error responses";
const S3: &str = "AmazonS3 API Reference, Error responses; minio/minio cmd/api-errors.go (7aac2a2c)";
const STATUS: &str =
    "aws/aws-sdk-go-v2 service/internal/s3shared/xml_utils.go, of an answer without a body (v1.20.1)";
const RESPONSE: &str = "aws/aws-sdk-go-v2 aws/transport/http/response_error.go (v1.48.0)";
const HOST: &str = "aws/aws-sdk-go-v2 service/internal/s3shared/response_error.go (v1.20.1)";
const X509: &str = "golang/go src/crypto/x509/verify.go (go1.26.8)";
const ERRNO: &str = "golang/go src/syscall/zerrors_linux_amd64.go (go1.26.8)";
const RUSTLS: &str = "rustls/rustls rustls/src/error.rs (0.23.46)";

const CHECKSUMS: &[Words] = &[
    words("XAmzContentSHA256Mismatch", S3),
    words("Unsupported header", "seen of Backblaze B2: velero-io/velero#7534"),
    words("x-amz-checksum", "seen of Cloudflare R2: cloudflare/cloudflare-docs#19236"),
    words("x-amz-sdk-checksum-algorithm", "seen of Backblaze B2: velero-io/velero#7534"),
    words("x-amz-trailer", "seen of Amazon S3: apache/hadoop#6467"),
    words(
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "aws/aws-sdk-go-v2 service/internal/checksum (v1.11.1); refused by OVH: ovh/public-cloud-roadmap#781",
    ),
    words("InvalidArgument", "seen of OVH and Oracle: velero-io/velero#7952, #9089"),
];
const ELSEWHERE: &[Words] = &[
    words("AuthorizationHeaderMalformed", S3),
    words("PermanentRedirect", AWS),
    words("IllegalLocationConstraint", AWS),
    words("BucketRegionError", "aws/aws-sdk-go service/s3/unmarshal_error.go (plugins to v1.8)"),
    words("MovedPermanently", STATUS),
    words("StatusCode: 301", RESPONSE),
];
const NO_TLS: &[Words] = &[
    words(
        "server gave HTTP response to HTTPS client",
        "golang/go src/net/http/client.go, ErrSchemeMismatch (go1.26.8)",
    ),
    words("first record does not look like a TLS handshake", "golang/go src/crypto/tls/conn.go (go1.26.8)"),
    words("InvalidContentType", RUSTLS),
];
const UNTRUSTED: &[Words] = &[UNKNOWN_AUTHORITY, words("UnknownIssuer", RUSTLS)];
const NOT_FOUND: &[Words] = &[
    words("no such host", "golang/go src/net/net.go, errNoSuchHost (go1.26.8)"),
    words(
        "failed to lookup address",
        "rust-lang/rust library/std/src/sys/net/connection/socket/unix.rs, cvt_gai",
    ),
    words("Name or service not known", "EAI_NONAME, in glibc"),
];

const NO_KEY: &[Words] = &[
    words(
        "static credentials are empty",
        "aws/aws-sdk-go-v2 credentials/static_provider.go (credentials v1.21.0)",
    ),
    words("failed to refresh cached credentials", "aws/aws-sdk-go-v2 aws/credential_cache.go (v1.48.0)"),
    words(
        "failed to get shared config profile",
        "aws/aws-sdk-go-v2 config/shared_config.go (config v1.33.18)",
    ),
];
const TLS_THERE: &[Words] = &[
    words("HTTP request to an HTTPS server", "golang/go src/net/http/server.go (go1.26.8)"),
    words(
        "HTTP request was sent to HTTPS port",
        "nginx/nginx src/http/ngx_http_special_response.c (05b1a8f1)",
    ),
];
const EXPIRED: &[Words] = &[
    words("certificate has expired", X509),
    words("certificate expired", RUSTLS),
    words("certificate not valid yet", RUSTLS),
];
const UNREACHABLE: &[Words] = &[
    words("i/o timeout", "golang/go src/net/net.go, timeoutError (go1.26.8)"),
    words("no route to host", ERRNO),
    words("network is unreachable", ERRNO),
    words("context deadline exceeded", "golang/go src/context/context.go (go1.26.8)"),
    words("timed out", "ETIMEDOUT: `Connection timed out` in glibc, `Operation timed out` in musl"),
];
const NO_S3: &[Words] = &[
    words("deserialization failed", "aws/smithy-go errors.go, DeserializationError (v1.28.1)"),
    words("invalid character '<'", "golang/go src/encoding/json/scanner.go (go1.26.8)"),
    words("not an S3 answer", "our own client, src/s3/mod.rs"),
];
const OTHER_NAMES: Words = words("x509: certificate is valid for", X509);
const OTHER_NAME: Words = words("certificate not valid for name", RUSTLS);
const NO_BUCKET: Words = words("NoSuchBucket", S3);
const NO_OBJECT: Words = words("NotFound", STATUS);

/// The first that matches speaks.
const REFUSALS: &[Refusal] = &[
    lasting(
        &[words("InvalidAccessKeyId", S3)],
        "the store does not know the access key: correct aws_access_key_id in the Secret cloud-credentials (or as \
         `backup.credentialsSecret` names it) of `backup.secrets`",
    ),
    lasting(
        &[words("SignatureDoesNotMatch", S3)],
        "the secret key is wrong: correct aws_secret_access_key in the Secret cloud-credentials (or as \
         `backup.credentialsSecret` names it) of `backup.secrets`",
    ),
    lasting(
        NO_KEY,
        "the credentials file holds no key: below `[default]` it needs aws_access_key_id and aws_secret_access_key, in \
         the Secret cloud-credentials (or as `backup.credentialsSecret` names it)",
    ),
    lasting(
        ELSEWHERE,
        "the bucket is in another region: correct `backup.location.region`{expecting}",
    ),
    lasting(
        &[NO_BUCKET, NO_OBJECT, words("StatusCode: 404", RESPONSE)],
        "the store takes the bucket's name for a part of the host's: set `backup.location.pathStyle: true`, as most S3 clones \
         want; or make the bucket, or correct `backup.location.bucket`",
    )
    .when(|asked, message| asked.by_host() && !NO_BUCKET.are_in(message)),
    lasting(
        &[NO_BUCKET],
        "make the bucket, or correct `backup.location.bucket`; or set `backup.location.pathStyle: true`, as most S3 clones \
         want",
    )
    .when(|asked, _| asked.by_host()),
    lasting(&[NO_BUCKET], "make the bucket, or correct `backup.location.bucket`"),
    lasting(&[words("InvalidBucketName", S3)], "correct `backup.location.bucket`"),
    lasting(
        CHECKSUMS,
        "checksum headers are off, but plugins before 1.14.3 send them all the same: take a newer one in \
         `images.veleroPlugin`",
    )
    .when(|asked, _| asked.no_checksums),
    lasting(CHECKSUMS, "this store refuses checksum headers: set `backup.location.checksumAlgorithm: \"\"`"),
    lasting(
        NO_TLS,
        "the store speaks no TLS there: write http:// in `backup.location.url`, or the port of its TLS",
    ),
    lasting(
        TLS_THERE,
        "the store speaks TLS there: write https:// in `backup.location.url`",
    ),
    lasting(
        UNTRUSTED,
        "the certificate is not of the authority in `backup.location.caCert`: put the one there that signed the store's",
    )
    .when(|asked, _| asked.ca),
    lasting(
        UNTRUSTED,
        "Velero does not trust the store's certificate: put the authority that signed it into `backup.location.caCert`, or use \
         one of a public authority",
    ),
    lasting(
        &[OTHER_NAMES, OTHER_NAME],
        "the certificate does not name the bucket's host: set `backup.location.pathStyle: true`",
    )
    .when(|asked, _| asked.by_host()),
    lasting(
        &[OTHER_NAMES, OTHER_NAME, words("IP SANs", X509), words("legacy Common Name", X509)],
        "the store's certificate does not name the host of `backup.location.url`: write the name that it has, or have one \
         made",
    ),
    passing(
        EXPIRED,
        "the store's certificate is not valid now: renew it, or correct the clocks",
    ),
    passing(
        &[words("x509", X509), words("invalid peer certificate", RUSTLS)],
        "Velero does not trust the store's certificate: see `backup.location.caCert`",
    ),
    lasting(
        NOT_FOUND,
        "the store has no name for each bucket: set `backup.location.pathStyle: true`, as most S3 clones want",
    )
    .when(StoreAddress::looks_bucket_up),
    passing(
        NOT_FOUND,
        "the store's name can't be resolved in the cluster: correct `backup.location.url`, or the DNS",
    ),
    passing(
        &[words("connection refused", ERRNO), words("Connection refused", "ECONNREFUSED, in glibc and musl")],
        "nothing listens there: check `backup.location.url`, and that the store is running",
    ),
    passing(
        UNREACHABLE,
        "`backup.location.url` can't be reached from the cluster: check routes and firewalls",
    ),
    passing(
        &[words("RequestTimeTooSkewed", S3), words("RequestExpired", "docs.aws.amazon.com, Common Errors of all services")],
        "a node's clock is off: point Talos' time servers at a working one",
    ),
    lasting(
        &[words("invalid top-level directories", "velero-io/velero pkg/persistence/object_store.go (d2241adba)")],
        "something else lies in the bucket: give Velero a bucket of its own, or a folder by `backup.location.prefix`",
    ),
    lasting(
        NO_S3,
        "something answers there that is no S3 API, such as MinIO's console: correct the port in `backup.location.url`",
    ),
    passing(
        &[words("AccessDenied", S3)],
        "the key lacks rights on the bucket: allow s3:ListBucket, GetObject, PutObject, DeleteObject",
    ),
    passing(
        &[words("Forbidden", STATUS), words("StatusCode: 403", RESPONSE)],
        "the key lacks rights on the bucket, or is wrong: check the Secret cloud-credentials (or as \
         `backup.credentialsSecret` names it)",
    ),
    passing(&[NO_OBJECT], "make the bucket, or correct `backup.location.bucket`"),
    lasting(
        &[words("invalid keys", "velero-io/velero pkg/plugin/framework/validation.go (d2241adba)")],
        "the plugin is too old for the location's settings: take the plugin that fits this Velero",
    ),
];

/// What a message about a store means, if it is known.
pub fn advice(message: &str, asked: &StoreAddress) -> Option<Advice> {
    let fits = |refusal: &&Refusal| {
        refusal.parts.iter().any(|part| part.are_in(message)) && (refusal.when)(asked, message)
    };
    let refusal = REFUSALS.iter().find(fits)?;
    let expecting = expected_region(message).map_or_else(String::new, |region| format!(", to {region}"));
    Some(Advice { lasting: refusal.lasting, hint: refusal.hint.replace("{expecting}", &expecting) })
}

/// The region that the store names as the right one: seen so of Amazon S3, in its message or in an element of its own.
fn expected_region(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("expecting ").or_else(|| message.split_once("<Region>"))?;
    let rest = rest.trim_start_matches(['\'', '"']);
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-')?;
    Some(&rest[..end]).filter(|region| !region.is_empty())
}

/// What is new in every answer: the ids of request and host.
const FRESH: [Words; 2] = [words("RequestID: ", RESPONSE), words("HostID: ", HOST)];

/// The message without that.
pub fn steady(message: &str) -> String {
    let fresh = |part: &&str| !FRESH.iter().any(|words| words.begin(part));
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
    fn a_wrong_key_reads_the_same_each_time() {
        let steady = steady(WRONG_KEY);
        assert!(steady.contains("StatusCode: 403, api error SignatureDoesNotMatch: The"), "{steady}");
    }

    #[test]
    fn each_refusal_has_the_remedy_for_it_and_not_that_of_another() {
        let own = StoreAddress {
            bucket: "backups".into(),
            region: "us-east-1".into(),
            url: Some("https://minio.lab".into()),
            ..StoreAddress::default()
        };
        let path = StoreAddress { path_style: true, ..own.clone() };
        let aws = StoreAddress { url: None, ..own.clone() };
        let plain = StoreAddress { no_checksums: true, ..path.clone() };
        let with_ca = StoreAddress { ca: true, ..path.clone() };
        let virtual_host =
            "Get \"https://backups.minio.lab/\": dial tcp: lookup backups.minio.lab: no such host";
        let elsewhere =
            "Get \"https://minio.lab/backups\": dial tcp: lookup minio.lab on 10.96.0.10:53: no such host";
        let malformed = "api error AuthorizationHeaderMalformed: The authorization header is malformed; the region 'us-east-1' \
                         is wrong; expecting 'eu-central-1'";
        let no_header =
            "StatusCode: 400, api error InvalidArgument: Unsupported header 'x-amz-sdk-checksum-algorithm'";
        let mismatch = "api error XAmzContentSHA256Mismatch: The Content-SHA256 you specified did not match what we received";
        let redirect = "StatusCode: 301, api error PermanentRedirect: The bucket you are attempting to access must be \
                        addressed using the specified endpoint";
        let of_aws = "Get \"https://backups.s3.eu-central-1.amazonaws.com/\": lookup \
                      backups.s3.eu-central-1.amazonaws.com: no such host";
        for (message, asked, remedy, stays) in [
            (WRONG_KEY, &path, "aws_secret_access_key", true),
            (
                "StatusCode: 403, api error InvalidAccessKeyId: The AWS Access Key Id",
                &aws,
                "aws_access_key_id",
                true,
            ),
            ("failed to refresh cached credentials, static credentials are empty", &path, "[default]", true),
            (virtual_host, &own, "pathStyle: true", true),
            (virtual_host, &StoreAddress { bucket: "other".into(), ..own.clone() }, "pathStyle: true", true),
            (virtual_host, &path, "the DNS", false),
            (of_aws, &aws, "the DNS", false),
            (elsewhere, &own, "the DNS", false),
            (elsewhere, &path, "the DNS", false),
            (malformed, &aws, "backup.location.region`, to eu-central-1", true),
            (redirect, &aws, "backup.location.region`", true),
            ("http: server gave HTTP response to HTTPS client", &path, "http://", true),
            ("received corrupt message of type InvalidContentType", &path, "http://", true),
            (
                "api error BadRequest: Client sent an HTTP request to an HTTPS server.",
                &path,
                "https://",
                true,
            ),
            (no_header, &path, "checksumAlgorithm: \"\"", true),
            (
                "InvalidArgument: x-amz-checksum-crc32 is not supported",
                &path,
                "checksumAlgorithm: \"\"",
                true,
            ),
            (mismatch, &path, "checksumAlgorithm: \"\"", true),
            (mismatch, &plain, "images.veleroPlugin", true),
            ("api error NoSuchBucket: The specified bucket does not exist", &path, "make the bucket", true),
            ("api error NoSuchBucket: x", &own, "pathStyle", true),
            ("StatusCode: 404, api error NotFound: Not Found", &own, "pathStyle", true),
            ("x509: certificate signed by unknown authority", &path, "`backup.location.caCert`", true),
            ("invalid peer certificate: UnknownIssuer", &path, "`backup.location.caCert`", true),
            ("x509: certificate signed by unknown authority", &with_ca, "the one there that signed", true),
            (
                "x509: certificate is valid for minio.lab, not backups.minio.lab",
                &own,
                "pathStyle: true",
                true,
            ),
            ("x509: certificate is valid for a.lab, not minio.lab", &path, "the name that it has", true),
            ("x509: certificate has expired or is not yet valid: current time", &path, "renew", false),
            ("dial tcp 10.0.0.5:9000: connect: connection refused", &path, "nothing listens", false),
            ("dial tcp 10.0.0.5:9000: i/o timeout", &path, "firewalls", false),
            ("api error RequestTimeTooSkewed: The difference", &path, "clock", false),
            ("invalid top-level directories: [photos]", &path, "backup.location.prefix", true),
            ("deserialization failed, failed to decode response body", &path, "console", true),
            ("api error AccessDenied: Access Denied", &path, "s3:ListBucket", false),
        ] {
            let advice = advice(message, asked).unwrap_or_else(|| panic!("{message}"));
            assert!(advice.hint.contains(remedy), "{message}: {}", advice.hint);
            assert_eq!(advice.lasting, stays, "{message}");
        }
        assert_eq!(advice("something new", &path), None);
    }
}
