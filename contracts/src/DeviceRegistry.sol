// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {IDeviceRegistry} from "../interfaces/IDeviceRegistry.sol";

/// @title DeviceRegistry
/// @dev AccessControl's `_roles` has slot 0. No proxy and no immutables, so its code hash is the same on every chain.
contract DeviceRegistry is IDeviceRegistry, AccessControl {
    /// @notice May enrol, rotate, retire and revoke keys and state what devices seal.
    bytes32 public constant REGISTRAR_ROLE = keccak256("REGISTRAR_ROLE");

    /// @inheritdoc IDeviceRegistry
    /// @dev Slot 1: state proofs (EIP-1186) of a key are made of this mapping.
    mapping(bytes32 key => Key) public keys;

    /// @inheritdoc IDeviceRegistry
    /// @dev Slot 2.
    mapping(bytes32 device => uint48) public sealsEverythingSince;

    /// @param admin Appoints and dismisses registrars. Best kept offline, or a multisig.
    /// @param registrar The first registrar; may be the admin on a development network.
    constructor(address admin, address registrar) {
        if (admin == address(0) || registrar == address(0)) revert ZeroAccount();
        _grantRole(DEFAULT_ADMIN_ROLE, admin);
        _grantRole(REGISTRAR_ROLE, registrar);
    }

    /// @inheritdoc IDeviceRegistry
    function enrol(bytes32 key, bytes32 certificate, bytes32 device, uint8 roles) external onlyRole(REGISTRAR_ROLE) {
        _enrol(key, certificate, device, roles);
    }

    /// @inheritdoc IDeviceRegistry
    function rotate(bytes32 oldKey, bytes32 newKey, bytes32 certificate, bytes32 device) external onlyRole(REGISTRAR_ROLE) {
        _retire(oldKey);
        _enrol(newKey, certificate, device, keys[oldKey].roles);
        emit KeyRotated(oldKey, newKey, device);
    }

    /// @inheritdoc IDeviceRegistry
    function retire(bytes32 key) external onlyRole(REGISTRAR_ROLE) {
        _retire(key);
    }

    /// @inheritdoc IDeviceRegistry
    function revoke(bytes32 key, uint48 compromisedSince) external onlyRole(REGISTRAR_ROLE) {
        Key storage known = _enrolled(key);
        if (compromisedSince == 0 || compromisedSince > block.timestamp) {
            revert ImpossibleDate(key, compromisedSince, block.timestamp);
        }
        if (known.compromisedSince != 0 && compromisedSince >= known.compromisedSince) {
            revert NotEarlier(key, known.compromisedSince, compromisedSince);
        }
        known.compromisedSince = compromisedSince;
        emit KeyRevoked(key, compromisedSince);
    }

    /// @inheritdoc IDeviceRegistry
    function setSealsEverythingSince(bytes32 device, uint48 since) external onlyRole(REGISTRAR_ROLE) {
        sealsEverythingSince[device] = since;
        emit SealsEverythingSince(device, since);
    }

    /// @inheritdoc IDeviceRegistry
    function isActiveAt(bytes32 key, uint48 time) external view returns (bool) {
        Key storage known = keys[key];
        return known.enrolledAt != 0 && known.enrolledAt <= time && (known.retiredAt == 0 || time <= known.retiredAt)
            && (known.compromisedSince == 0 || time < known.compromisedSince);
    }

    function _enrol(bytes32 key, bytes32 certificate, bytes32 device, uint8 roles) private {
        if (keys[key].enrolledAt != 0) revert AlreadyEnrolled(key, keys[key].enrolledAt);
        if (roles == 0) revert NoRoles(key);
        keys[key] =
            Key({certificate: certificate, enrolledAt: uint48(block.timestamp), retiredAt: 0, compromisedSince: 0, roles: roles});
        emit KeyEnrolled(key, device, certificate, roles);
    }

    function _retire(bytes32 key) private {
        Key storage known = _enrolled(key);
        if (known.retiredAt != 0) revert AlreadyRetired(key, known.retiredAt);
        known.retiredAt = uint48(block.timestamp);
        emit KeyRetired(key);
    }

    function _enrolled(bytes32 key) private view returns (Key storage known) {
        known = keys[key];
        if (known.enrolledAt == 0) revert NotEnrolled(key);
    }
}
