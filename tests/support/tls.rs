//! A throw-away CA, and servers' identities signed by it.

use std::net::IpAddr;
use std::path::PathBuf;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};

use super::Folder;

/// Days that its certificates are good for.
const DAYS: u32 = 2;
const CA_NAME: &str = "Throw-away CA";

pub struct Authority {
    key: PKey<Private>,
    certificate: X509,
}

impl Authority {
    pub fn new() -> Self {
        let key = new_key();
        let mut builder = new_certificate(CA_NAME, &key, 1, 0);
        builder.set_issuer_name(&name(CA_NAME)).unwrap();
        builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build().unwrap()).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        Self { key, certificate: builder.build() }
    }

    /// Its certificate as a file: for SSL_CERT_FILE or ELASTIC_CA_FILE.
    pub fn write(&self, folder: &Folder, name: &str) -> PathBuf {
        folder.write(name, self.certificate.to_pem().unwrap())
    }

    pub fn certificate_pem(&self) -> Vec<u8> {
        self.certificate.to_pem().unwrap()
    }

    /// What a server under these names and addresses proves itself with.
    pub fn identity(&self, names: &[&str]) -> native_tls::Identity {
        let (certificate, key) = self.certificate_and_key(names, 0);
        native_tls::Identity::from_pkcs8(&certificate, &key).unwrap()
    }

    /// The same, over since a day.
    pub fn expired_identity(&self, names: &[&str]) -> native_tls::Identity {
        let (certificate, key) = self.certificate_and_key(names, i64::from(DAYS) + 1);
        native_tls::Identity::from_pkcs8(&certificate, &key).unwrap()
    }

    /// Certificate and key as PEM texts, made so many days ago.
    pub fn certificate_and_key(&self, names: &[&str], days_ago: i64) -> (Vec<u8>, Vec<u8>) {
        let key = new_key();
        let mut builder = new_certificate(names.first().unwrap(), &key, 2, days_ago);
        builder.set_issuer_name(self.certificate.subject_name()).unwrap();
        let mut alternatives = SubjectAlternativeName::new();
        for name in names {
            if name.parse::<IpAddr>().is_ok() {
                alternatives.ip(name);
            } else {
                alternatives.dns(name);
            }
        }
        let alternatives = alternatives.build(&builder.x509v3_context(Some(&self.certificate), None)).unwrap();
        builder.append_extension(alternatives).unwrap();
        builder.append_extension(ExtendedKeyUsage::new().server_auth().build().unwrap()).unwrap();
        builder.sign(&self.key, MessageDigest::sha256()).unwrap();
        (builder.build().to_pem().unwrap(), key.private_key_to_pem_pkcs8().unwrap())
    }
}

fn new_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn name(text: &str) -> X509Name {
    let mut builder = X509NameBuilder::new().unwrap();
    builder.append_entry_by_nid(Nid::COMMONNAME, text).unwrap();
    builder.build()
}

fn new_certificate(subject: &str, key: &PKey<Private>, serial: u32, days_ago: i64) -> X509Builder {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    // An hour of slack, so that a clock a little behind finds it good.
    let from = now - 3600 - days_ago * 86_400;
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&BigNum::from_u32(serial).unwrap().to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&name(subject)).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&Asn1Time::from_unix(from).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::from_unix(from + i64::from(DAYS) * 86_400).unwrap()).unwrap();
    builder
}
