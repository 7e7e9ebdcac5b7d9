// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @title IDeviceRegistry
/// @notice Which keys may sign what, since when, and until when; and which devices seal everything they make. FORMAT.md §5.
/// @dev Everything is written by accounts with the role `REGISTRAR_ROLE`; `DEFAULT_ADMIN_ROLE` appoints them (OpenZeppelin
/// AccessControl, whose error for anyone else is `AccessControlUnauthorizedAccount(account, role)`). Times are seconds since 1970.
/// Entries are never deleted and a key is never enrolled twice, so a past state cannot be made to look otherwise: a date of
/// compromise is the one thing that reaches back, and it can only move earlier.
interface IDeviceRegistry {
    /// @notice A key, in two storage words.
    /// @param certificate SHA-256 of its X.509 certificate, DER.
    /// @param enrolledAt Block time of its enrolment, 0 for a key that is not enrolled.
    /// @param retiredAt Block time of its retirement, 0 for never. What it signed until then stays good.
    /// @param compromisedSince What is anchored from then on is not to be believed; 0 for never.
    /// @param roles Bits: 1 acquire, 2 transform, 4 hold, 8 read, 16 approve, 32 generate.
    struct Key {
        bytes32 certificate;
        uint48 enrolledAt;
        uint48 retiredAt;
        uint48 compromisedSince;
        uint8 roles;
    }

    /// @notice `key` may sign as `roles` from this block's time on.
    /// @param device `SHA-256(Manufacturer || 0x00 || ManufacturerModelName || 0x00 || DeviceSerialNumber)`.
    event KeyEnrolled(bytes32 indexed key, bytes32 indexed device, bytes32 certificate, uint8 roles);

    /// @notice `newKey` took over from `oldKey`; stands beside the `KeyRetired` and `KeyEnrolled` of the two.
    event KeyRotated(bytes32 indexed oldKey, bytes32 indexed newKey, bytes32 indexed device);

    /// @notice `key` signs nothing after this block's time.
    event KeyRetired(bytes32 indexed key);

    /// @notice `key` may be in somebody else's hands since `compromisedSince`.
    event KeyRevoked(bytes32 indexed key, uint48 compromisedSince);

    /// @notice Since `since` an image that claims `device` and has no record counts as stripped; 0 takes that back.
    event SealsEverythingSince(bytes32 indexed device, uint48 since);

    /// @notice The registry needs an admin and a registrar.
    error ZeroAccount();

    /// @notice `key` was enrolled at `enrolledAt`, and cannot be again, not even after its retirement.
    error AlreadyEnrolled(bytes32 key, uint48 enrolledAt);

    /// @notice `key` was never enrolled.
    error NotEnrolled(bytes32 key);

    /// @notice `key` was retired at `retiredAt`.
    error AlreadyRetired(bytes32 key, uint48 retiredAt);

    /// @notice A key without roles could sign nothing.
    error NoRoles(bytes32 key);

    /// @notice The date of compromise is missing (0) or later than `nowIs`, the block's time.
    error ImpossibleDate(bytes32 key, uint48 compromisedSince, uint256 nowIs);

    /// @notice The date of compromise is `known`; it can be moved earlier, not to `compromisedSince`.
    error NotEarlier(bytes32 key, uint48 known, uint48 compromisedSince);

    /// @notice Enrols a key for ever. Only for registrars.
    function enrol(bytes32 key, bytes32 certificate, bytes32 device, uint8 roles) external;

    /// @notice Retires `oldKey` now and enrols `newKey` with the same roles. Only for registrars. A revoked key can be rotated too.
    function rotate(bytes32 oldKey, bytes32 newKey, bytes32 certificate, bytes32 device) external;

    /// @notice Retires a key now. Only for registrars.
    function retire(bytes32 key) external;

    /// @notice Declares that a key is compromised since a date, not 0 and not in the future. Only for registrars.
    /// A second call may only move the date earlier. Retired keys can be revoked too.
    function revoke(bytes32 key, uint48 compromisedSince) external;

    /// @notice States since when a device seals everything it makes. Only for registrars; can be changed, 0 takes it back.
    function setSealsEverythingSince(bytes32 device, uint48 since) external;

    /// @notice What is known of a key; all zero when it was never enrolled.
    function keys(bytes32 key)
        external
        view
        returns (bytes32 certificate, uint48 enrolledAt, uint48 retiredAt, uint48 compromisedSince, uint8 roles);

    /// @notice Since when a device seals everything it makes, 0 for not stated.
    function sealsEverythingSince(bytes32 device) external view returns (uint48 since);

    /// @notice Whether, by what is known now, `key` was enrolled at `time`, not retired before it, and not yet compromised.
    /// @dev enrolledAt <= time, time <= retiredAt unless that is 0, time < compromisedSince unless that is 0. Says nothing of roles.
    function isActiveAt(bytes32 key, uint48 time) external view returns (bool);
}
