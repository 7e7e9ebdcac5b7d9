// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {IDeviceRegistry} from "../interfaces/IDeviceRegistry.sol";
import {DeviceRegistry} from "../src/DeviceRegistry.sol";
import {Checked} from "./Checked.sol";

contract DeviceRegistryTest is Checked {
    address private constant ADMIN = address(0xad);
    address private constant REGISTRAR = address(0x4e9);
    bytes32 private constant KEY = keccak256("key");
    bytes32 private constant NEXT = keccak256("next key");
    bytes32 private constant CERTIFICATE = keccak256("certificate");
    bytes32 private constant DEVICE = keccak256("device");
    uint48 private constant NOW = 1_700_000_000;

    DeviceRegistry private its;

    function setUp() public {
        vm.warp(NOW);
        its = new DeviceRegistry(ADMIN, REGISTRAR);
        vm.prank(REGISTRAR);
        its.enrol(KEY, CERTIFICATE, DEVICE, 1);
    }

    function check(bytes32 key, bytes32 certificate, uint48 enrolledAt, uint48 retiredAt, uint48 compromisedSince, uint8 roles)
        private
        view
    {
        (bytes32 a, uint48 b, uint48 c, uint48 d, uint8 e) = its.keys(key);
        same("certificate", a, certificate);
        same("enrolledAt", b, enrolledAt);
        same("retiredAt", c, retiredAt);
        same("compromisedSince", d, compromisedSince);
        same("roles", e, roles);
        bytes32 first = slotOf(key, bytes32(uint256(1)));
        uint256 word = uint256(enrolledAt) | uint256(retiredAt) << 48 | uint256(compromisedSince) << 96 | uint256(roles) << 144;
        same("word 0", vm.load(address(its), first), certificate);
        same("word 1", uint256(vm.load(address(its), bytes32(uint256(first) + 1))), word);
    }

    function test_the_registry_needs_an_admin_and_a_registrar() public {
        vm.expectRevert(abi.encodeWithSelector(IDeviceRegistry.ZeroAccount.selector));
        new DeviceRegistry(address(0), REGISTRAR);
        vm.expectRevert(abi.encodeWithSelector(IDeviceRegistry.ZeroAccount.selector));
        new DeviceRegistry(ADMIN, address(0));
    }

    function testFuzz_enrolling_stores_the_two_words_of_the_format(
        bytes32 key,
        bytes32 certificate,
        bytes32 device,
        uint8 roles,
        uint48 time
    ) public {
        vm.assume(key != KEY && roles != 0 && time != 0);
        vm.warp(time);
        vm.expectEmit(address(its));
        emit IDeviceRegistry.KeyEnrolled(key, device, certificate, roles);
        vm.prank(REGISTRAR);
        its.enrol(key, certificate, device, roles);
        check(key, certificate, time, 0, 0, roles);
    }

    function test_a_key_without_roles_is_not_enrolled() public {
        vm.expectRevert(abi.encodeWithSelector(IDeviceRegistry.NoRoles.selector, NEXT));
        vm.prank(REGISTRAR);
        its.enrol(NEXT, CERTIFICATE, DEVICE, 0);
    }

    function test_a_key_is_never_enrolled_twice() public {
        vm.warp(NOW + 1);
        bytes memory reason = abi.encodeWithSelector(IDeviceRegistry.AlreadyEnrolled.selector, KEY, NOW);
        vm.expectRevert(reason);
        vm.prank(REGISTRAR);
        its.enrol(KEY, CERTIFICATE, DEVICE, 1);
        vm.prank(REGISTRAR);
        its.rotate(KEY, NEXT, CERTIFICATE, DEVICE);
        vm.expectRevert(reason); // retired keys stay enrolled
        vm.prank(REGISTRAR);
        its.enrol(KEY, CERTIFICATE, DEVICE, 1);
        vm.expectRevert(reason);
        vm.prank(REGISTRAR);
        its.rotate(NEXT, KEY, CERTIFICATE, DEVICE);
        vm.expectRevert(abi.encodeWithSelector(IDeviceRegistry.AlreadyEnrolled.selector, NEXT, NOW + 1));
        vm.prank(REGISTRAR);
        its.rotate(NEXT, NEXT, CERTIFICATE, DEVICE);
    }

    function testFuzz_rotating_hands_the_roles_over(uint8 roles, bytes32 certificate, bytes32 device) public {
        vm.assume(roles != 0);
        bytes32 old = keccak256("old");
        vm.prank(REGISTRAR);
        its.enrol(old, CERTIFICATE, DEVICE, roles);
        vm.warp(NOW + 60);
        vm.expectEmit(address(its));
        emit IDeviceRegistry.KeyRetired(old);
        vm.expectEmit(address(its));
        emit IDeviceRegistry.KeyEnrolled(NEXT, device, certificate, roles);
        vm.expectEmit(address(its));
        emit IDeviceRegistry.KeyRotated(old, NEXT, device);
        vm.prank(REGISTRAR);
        its.rotate(old, NEXT, certificate, device);
        check(old, CERTIFICATE, NOW, NOW + 60, 0, roles);
        check(NEXT, certificate, NOW + 60, 0, 0, roles);
    }

    function test_a_key_retires_once() public {
        vm.warp(NOW + 60);
        vm.expectEmit(address(its));
        emit IDeviceRegistry.KeyRetired(KEY);
        vm.prank(REGISTRAR);
        its.retire(KEY);
        check(KEY, CERTIFICATE, NOW, NOW + 60, 0, 1);
        vm.warp(NOW + 61);
        bytes memory reason = abi.encodeWithSelector(IDeviceRegistry.AlreadyRetired.selector, KEY, NOW + 60);
        vm.expectRevert(reason);
        vm.prank(REGISTRAR);
        its.retire(KEY);
        vm.expectRevert(reason);
        vm.prank(REGISTRAR);
        its.rotate(KEY, NEXT, CERTIFICATE, DEVICE);
    }

    function testFuzz_revoking_only_reaches_further_back(uint48 first, uint48 second) public {
        vm.assume(first > 0 && first <= NOW && second > 0 && second <= NOW);
        vm.expectEmit(address(its));
        emit IDeviceRegistry.KeyRevoked(KEY, first);
        vm.prank(REGISTRAR);
        its.revoke(KEY, first);
        check(KEY, CERTIFICATE, NOW, 0, first, 1);
        if (second >= first) vm.expectRevert(abi.encodeWithSelector(IDeviceRegistry.NotEarlier.selector, KEY, first, second));
        vm.prank(REGISTRAR);
        its.revoke(KEY, second);
        check(KEY, CERTIFICATE, NOW, 0, second < first ? second : first, 1);
    }

    function testFuzz_a_key_was_not_compromised_never_or_tomorrow(uint48 since) public {
        vm.assume(since == 0 || since > NOW);
        vm.expectRevert(abi.encodeWithSelector(IDeviceRegistry.ImpossibleDate.selector, KEY, since, uint256(NOW)));
        vm.prank(REGISTRAR);
        its.revoke(KEY, since);
    }

    function test_a_compromise_cannot_be_taken_back() public {
        vm.prank(REGISTRAR);
        its.revoke(KEY, NOW);
        vm.expectRevert(abi.encodeWithSelector(IDeviceRegistry.ImpossibleDate.selector, KEY, uint48(0), uint256(NOW)));
        vm.prank(REGISTRAR);
        its.revoke(KEY, 0);
    }

    function test_a_revoked_key_can_be_rotated_and_a_retired_one_revoked() public {
        vm.prank(REGISTRAR);
        its.revoke(KEY, NOW - 5);
        vm.prank(REGISTRAR);
        its.rotate(KEY, NEXT, CERTIFICATE, DEVICE);
        vm.prank(REGISTRAR);
        its.revoke(KEY, NOW - 6);
        check(KEY, CERTIFICATE, NOW, NOW, NOW - 6, 1);
        check(NEXT, CERTIFICATE, NOW, 0, 0, 1);
    }

    function test_what_was_never_enrolled_cannot_be_retired_rotated_or_revoked() public {
        bytes memory reason = abi.encodeWithSelector(IDeviceRegistry.NotEnrolled.selector, NEXT);
        vm.expectRevert(reason);
        vm.prank(REGISTRAR);
        its.retire(NEXT);
        vm.expectRevert(reason);
        vm.prank(REGISTRAR);
        its.rotate(NEXT, KEY, CERTIFICATE, DEVICE);
        vm.expectRevert(reason);
        vm.prank(REGISTRAR);
        its.revoke(NEXT, NOW);
    }

    function testFuzz_a_device_seals_everything_since_a_date_in_slot_2(bytes32 device, uint48 since, uint48 corrected) public {
        vm.expectEmit(address(its));
        emit IDeviceRegistry.SealsEverythingSince(device, since);
        vm.prank(REGISTRAR);
        its.setSealsEverythingSince(device, since);
        vm.prank(REGISTRAR);
        its.setSealsEverythingSince(device, corrected);
        same("since", its.sealsEverythingSince(device), corrected);
        same("word", uint256(vm.load(address(its), slotOf(device, bytes32(uint256(2))))), corrected);
    }

    function testFuzz_active_from_enrolment_until_retirement_or_compromise(uint48 time) public {
        time = uint48(NOW - 3 + time % 20);
        same("never enrolled", its.isActiveAt(NEXT, time) ? 1 : 0, 0);
        same("enrolled", its.isActiveAt(KEY, time) ? 1 : 0, time >= NOW ? 1 : 0);
        vm.warp(NOW + 10);
        vm.prank(REGISTRAR);
        its.retire(KEY);
        same("retired", its.isActiveAt(KEY, time) ? 1 : 0, time >= NOW && time <= NOW + 10 ? 1 : 0);
        vm.prank(REGISTRAR);
        its.revoke(KEY, NOW + 5);
        same("compromised", its.isActiveAt(KEY, time) ? 1 : 0, time >= NOW && time < NOW + 5 ? 1 : 0);
        vm.prank(REGISTRAR);
        its.revoke(KEY, NOW - 1);
        same("compromised before", its.isActiveAt(KEY, time) ? 1 : 0, 0);
    }

    function testFuzz_only_registrars_write(address caller) public {
        vm.assume(caller != REGISTRAR);
        bytes[5] memory calls = [
            abi.encodeCall(its.enrol, (NEXT, CERTIFICATE, DEVICE, 1)),
            abi.encodeCall(its.rotate, (KEY, NEXT, CERTIFICATE, DEVICE)),
            abi.encodeCall(its.retire, (KEY)),
            abi.encodeCall(its.revoke, (KEY, NOW)),
            abi.encodeCall(its.setSealsEverythingSince, (DEVICE, NOW))
        ];
        bytes memory refusal =
            abi.encodeWithSelector(IAccessControl.AccessControlUnauthorizedAccount.selector, caller, its.REGISTRAR_ROLE());
        for (uint256 i = 0; i < calls.length; ++i) {
            vm.prank(caller);
            (bool done, bytes memory reason) = address(its).call(calls[i]);
            same("refused", done ? 1 : 0, 0);
            same("reason", keccak256(reason), keccak256(refusal));
        }
    }

    function test_the_admin_appoints_and_dismisses_registrars_and_nobody_else_does() public {
        bytes32 role = its.REGISTRAR_ROLE();
        vm.expectRevert(
            abi.encodeWithSelector(IAccessControl.AccessControlUnauthorizedAccount.selector, REGISTRAR, its.DEFAULT_ADMIN_ROLE())
        );
        vm.prank(REGISTRAR);
        its.grantRole(role, address(0xbad));
        vm.prank(ADMIN);
        its.grantRole(role, address(0x600d));
        vm.prank(ADMIN);
        its.revokeRole(role, REGISTRAR);
        vm.prank(address(0x600d));
        its.retire(KEY);
        vm.expectRevert(abi.encodeWithSelector(IAccessControl.AccessControlUnauthorizedAccount.selector, REGISTRAR, role));
        vm.prank(REGISTRAR);
        its.enrol(NEXT, CERTIFICATE, DEVICE, 1);
    }
}
