//! The KEM of post-quantum age keys, X-Wing (HPKE's 0x647a): ML-KEM-768 and X25519, whose two secrets are hashed into one. Both are
//! crates'; here is how the specification puts them together.

use hpke::generic_array::GenericArray;
use hpke::generic_array::typenum::{Sum, U32, U96, U192, U1024, Unsigned as _};
use hpke::kem::SharedSecret;
use hpke::rand_core::{CryptoRng, RngCore};
use hpke::{Deserializable, HpkeError, Serializable};
use ml_kem::kem::{Decapsulate as _, Encapsulate as _};
use ml_kem::{Ciphertext, EncodedSizeUser as _, KemCore, MlKem768};
use sha3::digest::{ExtendableOutput as _, FixedOutput as _, Update as _, XofReader as _};
use sha3::{Sha3_256, Shake256};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};
use zeroize::{Zeroize as _, Zeroizing};

/// The end of what is hashed.
const LABEL: &[u8; 6] = b"\\.//^\\";
/// The prime that the numbers of an ML-KEM key are below.
const PRIME: u16 = 3329;

type Decapsulation = <MlKem768 as KemCore>::DecapsulationKey;
type Encapsulation = <MlKem768 as KemCore>::EncapsulationKey;

#[derive(Debug)]
pub(super) struct XWing;

/// A seed of 32 bytes, from which both private keys come.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Private(Zeroizing<[u8; 32]>);

/// An ML-KEM key of 1184 bytes and an X25519 key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Public(Vec<u8>);

/// What is sent along: an ML-KEM ciphertext of 1088 bytes and an X25519 key.
#[derive(Clone)]
pub(super) struct Share(Vec<u8>);

impl Private {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self(Zeroizing::new(seed))
    }

    fn keys(&self) -> (Decapsulation, Encapsulation, Zeroizing<[u8; 32]>) {
        let mut source = Shake256::default().chain(*self.0).finalize_xof();
        let (mut first, mut second, mut third) = ([0; 32], [0; 32], Zeroizing::new([0; 32]));
        source.read(&mut first);
        source.read(&mut second);
        source.read(third.as_mut());
        let (private, public) = MlKem768::generate_deterministic(&first.into(), &second.into());
        first.zeroize();
        second.zeroize();
        (private, public, third)
    }
}

impl Share {
    /// Whether the X25519 half is a point that makes every shared secret zero.
    pub(super) fn has_low_order(&self) -> bool {
        const ANY: [u8; 32] = [9; 32];
        halves(&self.0).is_none_or(|(_, point)| x25519(ANY, point) == [0; 32])
    }
}

/// What is ML-KEM's, and the X25519 key at the end.
fn halves(bytes: &[u8]) -> Option<(&[u8], [u8; 32])> {
    bytes.split_last_chunk().map(|(kem, point)| (kem, *point))
}

fn sized(bytes: &[u8], size: usize) -> Result<Vec<u8>, HpkeError> {
    if bytes.len() == size {
        Ok(bytes.to_vec())
    } else {
        Err(HpkeError::IncorrectInputLength(size, bytes.len()))
    }
}

impl Serializable for Private {
    type OutputSize = U32;

    fn write_exact(&self, buf: &mut [u8]) {
        buf.copy_from_slice(self.0.as_ref());
    }
}

impl Deserializable for Private {
    fn from_bytes(bytes: &[u8]) -> Result<Self, HpkeError> {
        let wrong = || HpkeError::IncorrectInputLength(U32::USIZE, bytes.len());
        bytes.try_into().map(Self::new).map_err(|_| wrong())
    }
}

impl Serializable for Public {
    type OutputSize = Sum<U1024, U192>;

    fn write_exact(&self, buf: &mut [u8]) {
        buf.copy_from_slice(&self.0);
    }
}

impl Deserializable for Public {
    fn from_bytes(bytes: &[u8]) -> Result<Self, HpkeError> {
        let public = Self(sized(bytes, <Self as Serializable>::OutputSize::USIZE)?);
        // Numbers of 12 bits, then 32 bytes that may be anything.
        let numbers = halves(bytes).map_or(&[][..], |(kem, _)| kem.get(..kem.len() - 32).unwrap_or_default());
        let small = |three: &[u8]| match three {
            [a, b, c] => {
                let (a, b, c) = (u16::from(*a), u16::from(*b), u16::from(*c));
                (a | (b & 0xf) << 8) < PRIME && (b >> 4 | c << 4) < PRIME
            }
            _ => false,
        };
        if numbers.chunks(3).all(small) { Ok(public) } else { Err(HpkeError::ValidationError) }
    }
}

impl Serializable for Share {
    type OutputSize = Sum<U1024, U96>;

    fn write_exact(&self, buf: &mut [u8]) {
        buf.copy_from_slice(&self.0);
    }
}

impl Deserializable for Share {
    fn from_bytes(bytes: &[u8]) -> Result<Self, HpkeError> {
        sized(bytes, <Self as Serializable>::OutputSize::USIZE).map(Self)
    }
}

impl hpke::Kem for XWing {
    type PublicKey = Public;
    type PrivateKey = Private;
    type EncappedKey = Share;
    type NSecret = U32;

    const KEM_ID: u16 = 0x647a;

    fn sk_to_pk(private: &Private) -> Public {
        let (_, public, scalar) = private.keys();
        let point = x25519(*scalar, X25519_BASEPOINT_BYTES);
        Public([public.as_bytes().as_slice(), &point].concat())
    }

    fn derive_keypair(seed: &[u8]) -> (Private, Public) {
        let mut own = Zeroizing::new([0; 32]);
        Shake256::default().chain(seed).finalize_xof().read(own.as_mut());
        let private = Private(own);
        let public = Self::sk_to_pk(&private);
        (private, public)
    }

    fn decap(
        private: &Private,
        sender: Option<&Public>,
        share: &Share,
    ) -> Result<SharedSecret<Self>, HpkeError> {
        let (None, Some((ciphertext, point))) = (sender, halves(&share.0)) else {
            return Err(HpkeError::DecapError);
        };
        let (kem, _, scalar) = private.keys();
        let ciphertext = Ciphertext::<MlKem768>::try_from(ciphertext).map_err(|_| HpkeError::DecapError)?;
        let first = kem.decapsulate(&ciphertext).map_err(|()| HpkeError::DecapError)?;
        let second = Zeroizing::new(x25519(*scalar, point));
        Ok(combined(&first, &*second, &point, &x25519(*scalar, X25519_BASEPOINT_BYTES)))
    }

    fn encap<R: CryptoRng + RngCore>(
        public: &Public,
        sender: Option<(&Private, &Public)>,
        random: &mut R,
    ) -> Result<(SharedSecret<Self>, Share), HpkeError> {
        let (None, Some((kem, point))) = (sender, halves(&public.0)) else {
            return Err(HpkeError::EncapError);
        };
        let kem = Encapsulation::from_bytes(kem.try_into().map_err(|_| HpkeError::EncapError)?);
        let (ciphertext, first) = kem.encapsulate(random).map_err(|()| HpkeError::EncapError)?;
        let mut scalar = Zeroizing::new([0; 32]);
        random.fill_bytes(scalar.as_mut());
        let own = x25519(*scalar, X25519_BASEPOINT_BYTES);
        let second = Zeroizing::new(x25519(*scalar, point));
        let share = Share([ciphertext.as_slice(), &own].concat());
        Ok((combined(&first, &*second, &own, &point), share))
    }
}

fn combined(kem: &[u8], diffie_hellman: &[u8], share: &[u8], public: &[u8]) -> SharedSecret<XWing> {
    let hash = Sha3_256::default().chain(kem).chain(diffie_hellman).chain(share).chain(public).chain(LABEL);
    SharedSecret(GenericArray::clone_from_slice(&hash.finalize_fixed()))
}
