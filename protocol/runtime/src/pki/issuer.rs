//! A controller's issuing key and its self-signed certificate, whose digest stands in the trust root. It names whom it is
//! told to name and takes nothing but the public key from a request.

use std::{fmt, time::Duration};

use dotmac_protocol::{
    digest::Digest,
    ids::{AgentId, ClusterId, NodeId},
    keys::PublicKey,
    time::Timestamp,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use zeroize::Zeroizing;

use super::{KeyPair, PeerName, PkiError, SpiffeName, key_digest, requested_key};
use crate::{clock::Clock, entropy::Entropy};

/// Certificates begin so many milliseconds before they are made, for clocks that are behind.
pub const CLOCK_TOLERANCE_MS: u64 = 5 * 60 * 1000;
/// An issuer's certificate is valid for 30 years; it is replaced by a new trust root, not by its end.
const ISSUER_LIFETIME_MS: u64 = 30 * 365 * 24 * 3600 * 1000;
/// The last second that a certificate can name without a fraction (RFC 5280, section 4.1.2.5).
const LAST_SECOND: u64 = 253_402_300_799;

/// See the module's text. Holds a private key.
#[derive(Clone)]
pub struct Issuer {
    key: KeyPair,
    certificate: Vec<u8>,
}

impl Issuer {
    /// A new issuer for one controller.
    ///
    /// # Panics
    /// Never: the certificate's form does not depend on its arguments.
    #[must_use]
    pub fn create(cluster: &ClusterId, node: NodeId, clock: &Clock, entropy: &Entropy) -> Self {
        let key = KeyPair::generate(entropy);
        let mut params = params_from(clock.now(), ISSUER_LIFETIME_MS, &key.public().0);
        params.distinguished_name = common_name(&format!("dotmac {cluster} issuer {node}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params
            .self_signed(&key)
            .expect("an issuer's certificate can be encoded");
        Self {
            key,
            certificate: certificate.der().to_vec(),
        }
    }

    /// An issuer from what [`Issuer::secret`] and [`Issuer::certificate`] gave.
    ///
    /// # Errors
    /// When either cannot be read, or they do not belong together.
    pub fn load(secret: &[u8], certificate: Vec<u8>) -> Result<Self, PkiError> {
        let key = KeyPair::from_pkcs8(secret)?;
        if key_digest(&certificate)? != key.digest() {
            return Err(PkiError::OtherKey);
        }
        Ok(Self { key, certificate })
    }

    /// The private key: PKCS #8, DER.
    #[must_use]
    pub fn secret(&self) -> Zeroizing<Vec<u8>> {
        self.key.to_pkcs8()
    }

    /// The self-signed certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Digest of [`Issuer::certificate`]: what the trust root names.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.certificate)
    }

    /// The public half of the issuing key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// Issues a certificate to an agent, for the key of its request (PKCS #10, DER) and nothing else in it. Gives the
    /// chain: the agent's certificate, then the issuer's. It begins [`CLOCK_TOLERANCE_MS`] before `now` and ends
    /// `lifetime_ms` after it.
    ///
    /// # Errors
    /// When the request is not signed by its own Ed25519 key.
    pub fn issue_agent(
        &self,
        request: &[u8],
        cluster: &ClusterId,
        agent: &AgentId,
        now: Timestamp,
        lifetime_ms: u64,
    ) -> Result<Vec<Vec<u8>>, PkiError> {
        let key = SubjectPublicKeyInfo::from_der(&requested_key(request)?)
            .map_err(|_| PkiError::Request)?;
        let mut params = params_from(now, lifetime_ms, key.der_bytes());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let name = PeerName::Agent(agent.clone());
        self.issue(&key, params, cluster.clone(), name)
    }

    /// Issues a certificate to this controller itself, as [`Issuer::issue_agent`] does to agents; it serves and dials.
    ///
    /// # Errors
    /// When `incarnation` is not 1 to 64 lower-case letters, digits or hyphens.
    pub fn issue_node(
        &self,
        key: &KeyPair,
        cluster: &ClusterId,
        node: NodeId,
        incarnation: &str,
        now: Timestamp,
        lifetime_ms: u64,
    ) -> Result<Vec<Vec<u8>>, PkiError> {
        let mut params = params_from(now, lifetime_ms, key.der_bytes());
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let incarnation = incarnation.to_owned();
        self.issue(
            key,
            params,
            cluster.clone(),
            PeerName::Controller { node, incarnation },
        )
    }

    fn issue(
        &self,
        key: &impl PublicKeyData,
        mut params: CertificateParams,
        cluster: ClusterId,
        name: PeerName,
    ) -> Result<Vec<Vec<u8>>, PkiError> {
        // Nobody could be believed under a name that does not read back.
        let uri = SpiffeName { cluster, name }.to_string();
        uri.parse::<SpiffeName>()?;
        let issue = |detail: rcgen::Error| PkiError::Issue {
            detail: detail.to_string(),
        };
        params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(issue)?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate = self.certificate.as_slice().into();
        let issuer = rcgen::Issuer::from_ca_cert_der(&certificate, &self.key).map_err(issue)?;
        let leaf = params.signed_by(key, &issuer).map_err(issue)?;
        Ok(vec![leaf.der().to_vec(), self.certificate.clone()])
    }
}

/// Shows the public half only.
impl fmt::Debug for Issuer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Issuer({})", self.digest())
    }
}

/// Parameters with a window and a serial number that differs between keys and seconds.
fn params_from(now: Timestamp, lifetime_ms: u64, key: &[u8]) -> CertificateParams {
    let not_before = Timestamp(now.0.saturating_sub(CLOCK_TOLERANCE_MS));
    let date = |time: Timestamp| {
        let seconds = (time.0 / 1000).min(LAST_SECOND);
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    let mut params = CertificateParams::default();
    params.not_before = date(not_before);
    params.not_after = date(now.plus_millis(lifetime_ms));
    params.distinguished_name = DistinguishedName::new();
    let unique = [key, &now.0.to_be_bytes()].concat();
    let mut serial = Digest::tagged("dotmac/serial", &unique).as_bytes()[..16].to_vec();
    // Positive and of full length (RFC 5280, section 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::{
        ids::NodeId,
        time::{Timestamp, Window},
    };

    use super::{CLOCK_TOLERANCE_MS, Issuer};
    use crate::{
        clock::Clock,
        entropy::Entropy,
        pki::{KeyPair, PkiError, csr, key_digest, name_of, validity},
    };

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn issuer() -> Issuer {
        let (clock, _) = Clock::manual(NOW);
        Issuer::create(
            &"main".parse().unwrap(),
            NodeId(1),
            &clock,
            &Entropy::seeded(1),
        )
    }

    #[test]
    fn an_agent_gets_the_name_and_window_the_issuer_gives() {
        let key = KeyPair::generate(&Entropy::seeded(2));
        let (cluster, agent) = ("main".parse().unwrap(), "eu-1-00ff".parse().unwrap());
        let chain = issuer()
            .issue_agent(&csr(&key), &cluster, &agent, NOW, 3_600_000)
            .unwrap();
        assert_eq!(chain[1], issuer().certificate());
        assert_eq!(
            name_of(&chain[0]).unwrap().to_string(),
            "spiffe://main/agent/eu-1-00ff"
        );
        assert_eq!(key_digest(&chain[0]), Ok(key.digest()));
        let expected = Window {
            not_before: Timestamp(NOW.0 - CLOCK_TOLERANCE_MS),
            not_after: NOW.plus_millis(3_600_000),
        };
        assert_eq!(validity(&chain[0]), Ok(expected));
    }

    #[test]
    fn a_request_without_proof_of_its_key_gets_nothing() {
        let mut request = csr(&KeyPair::generate(&Entropy::seeded(2)));
        *request.last_mut().unwrap() ^= 1;
        let (cluster, agent) = ("main".parse().unwrap(), "eu-1".parse().unwrap());
        let refused = issuer().issue_agent(&request, &cluster, &agent, NOW, 1_000);
        assert_eq!(refused, Err(PkiError::Request));
    }

    #[test]
    fn a_name_that_does_not_read_back_is_not_issued() {
        let key = KeyPair::generate(&Entropy::seeded(2));
        let cluster = "main".parse().unwrap();
        for wrong in ["", "a/b", "UPPER"] {
            let refused = issuer().issue_node(&key, &cluster, NodeId(1), wrong, NOW, 1_000);
            assert!(matches!(refused, Err(PkiError::Name { .. })), "{wrong}");
        }
    }

    #[test]
    fn an_issuer_survives_its_disk_form_and_refuses_a_foreign_certificate() {
        let issuer = issuer();
        let loaded = Issuer::load(&issuer.secret(), issuer.certificate().to_vec()).unwrap();
        assert_eq!(loaded.digest(), issuer.digest());
        let (clock, _) = Clock::manual(NOW);
        let cluster = "main".parse().unwrap();
        let other = Issuer::create(&cluster, NodeId(2), &clock, &Entropy::seeded(7));
        let mixed = Issuer::load(&issuer.secret(), other.certificate().to_vec());
        assert_eq!(mixed.err(), Some(PkiError::OtherKey));
    }
}
