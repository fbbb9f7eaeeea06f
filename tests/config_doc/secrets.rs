//! Every field of every kind of document that holds a secret is redacted.

use nodeprep::config_doc::{ConfigDoc, redact};

use crate::common::diff;

/// Documents in which `S3CRET` stands for the secret and `shown` for what must stay readable.
const DOCUMENTS: [(&str, &str); 34] = [
    ("machine.token", "machine: {token: S3CRET, type: shown}"),
    ("machine.ca", "machine: {ca: {crt: shown, key: S3CRET}}"),
    ("registry password", "machine: {registries: {config: {shown: {auth: {password: S3CRET}}}}}"),
    ("registry auth", "machine: {registries: {config: {shown: {auth: {auth: S3CRET}}}}}"),
    ("registry identity token", "machine: {registries: {config: {shown: {auth: {identityToken: S3CRET}}}}}"),
    (
        "client identity",
        "machine: {registries: {config: {a: {tls: {clientIdentity: {crt: shown, key: S3CRET}}}}}}",
    ),
    ("WireGuard", "machine: {network: {interfaces: [{interface: shown, wireguard: {privateKey: S3CRET}}]}}"),
    (
        "WireGuard peer",
        "machine: {network: {interfaces: [{wireguard: {peers: [{publicKey: shown, presharedKey: S3CRET}]}}]}}",
    ),
    (
        "Equinix VIP",
        "machine: {network: {interfaces: [{vip: {ip: shown, equinixMetal: {apiToken: S3CRET}}}]}}",
    ),
    (
        "HCloud VIP of a VLAN",
        "machine: {network: {interfaces: [{vlans: [{vip: {ip: shown, hcloud: {apiToken: S3CRET}}}]}]}}",
    ),
    (
        "disk encryption",
        "machine: {systemDiskEncryption: {state: {provider: shown, keys: [{static: {passphrase: S3CRET}}]}}}",
    ),
    ("files", "machine: {files: [{path: shown, content: S3CRET}]}"),
    ("env", "machine: {env: {NO_PROXY: shown, GITHUB_TOKEN: S3CRET}}"),
    ("proxy", "machine: {env: {https_proxy: 'http://u:S3CRET@shown:1'}}"),
    (
        "static pods",
        "machine: {pods: [{spec: {containers: [{name: shown, env: [{name: DB_PASSWORD, value: S3CRET}]}]}}]}",
    ),
    ("an argument", "machine: {pods: [{spec: {containers: [{args: [shown, --password, S3CRET]}]}}]}"),
    (
        "an argument with its value",
        "machine: {pods: [{spec: {containers: [{args: [shown, --api-token=S3CRET]}]}}]}",
    ),
    (
        "kernel arguments",
        "machine: {install: {disk: shown, extraKernelArgs: ['siderolink.api=https://a?jointoken=S3CRET']}}",
    ),
    ("cluster.secret", "cluster: {id: shown, secret: S3CRET}"),
    ("cluster.token", "cluster: {clusterName: shown, token: S3CRET}"),
    (
        "etcd encryption",
        "cluster: {clusterName: shown, secretboxEncryptionSecret: S3CRET, aescbcEncryptionSecret: S3CRET}",
    ),
    (
        "certificate authorities",
        "cluster: {ca: {crt: shown, key: S3CRET}, aggregatorCA: {key: S3CRET}, etcd: {ca: {key: S3CRET}}}",
    ),
    ("service account", "cluster: {clusterName: shown, serviceAccount: {key: S3CRET}}"),
    ("inline manifests", "cluster: {inlineManifests: [{name: shown, contents: S3CRET}]}"),
    ("manifest headers", "cluster: {clusterName: shown, extraManifestHeaders: {X-Any: S3CRET}}"),
    (
        "volume encryption",
        "kind: UserVolumeConfig\nname: shown\nencryption: {keys: [{slot: 0, static: {passphrase: S3CRET}}]}",
    ),
    (
        "WireguardConfig",
        "kind: WireguardConfig\nname: shown\nprivateKey: S3CRET\npeers: [{presharedKey: S3CRET}]",
    ),
    ("HCloudVIPConfig", "kind: HCloudVIPConfig\nname: shown\napiToken: S3CRET"),
    (
        "SideroLinkConfig",
        "kind: SideroLinkConfig\napiUrl: 'https://shown?jointoken=S3CRET'\nuniqueToken: S3CRET",
    ),
    (
        "RegistryAuthConfig",
        "kind: RegistryAuthConfig\nname: shown\npassword: S3CRET\nauth: S3CRET\nidentityToken: S3CRET",
    ),
    ("EnvironmentConfig", "kind: EnvironmentConfig\nvariables: {A: shown, VAULT_SECRET: S3CRET}"),
    (
        "ExternalManifestConfig",
        "kind: ExternalManifestConfig\nname: shown\nheaders: {Authorization: Bearer S3CRET}",
    ),
    (
        "KubeEtcdEncryptionConfig",
        "kind: KubeEtcdEncryptionConfig\nconfig: {resources: [{providers: [{aescbc: {keys: [{name: shown, secret: S3CRET}]}}]}]}",
    ),
    ("DiscoveryIdentityConfig", "kind: DiscoveryIdentityConfig\nclusterID: shown\nclusterSecret: S3CRET"),
];

#[test]
fn no_secret_field_of_any_kind_is_shown_and_the_rest_is() {
    for (name, document) in DOCUMENTS {
        let text = document.replace("S3CRET", "s3cr3t-v4lue") + "\n";
        let (redacted, changed) = (redact(&text), text.replace("s3cr3t-v4lue", "s3cr3t-0ther"));
        assert!(!redacted.contains("s3cr3t"), "{name}: {redacted}");
        assert!(redacted.contains("shown"), "{name}: {redacted}");
        assert!(ConfigDoc::parse(&redacted).is_ok(), "{name}: {redacted}");
        assert_eq!(redact(&redacted), redacted, "{name}");
        assert!(!diff(&text, &changed).contains("s3cr3t"), "{name}");
    }
}

#[test]
fn a_secret_is_hidden_wherever_it_is_said_again() {
    let text = "machine:\n  token: s3cr3t-v4lue # s3cr3t-v4lue\n  # was s3cr3t-v4lue once\n  nodeLabels: {a: s3cr3t-v4lue, b: shown}\n";
    let redacted = redact(text);
    assert!(!redacted.contains("s3cr3t") && redacted.contains("shown"), "{redacted}");
}
