import numpy as np
import pytest

from sb3_q2rl.envs.franka.policy_images import centre_square, resize_by_area, to_policy_image


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_square_is_central():
    image = picture(480, 640)
    np.testing.assert_array_equal(centre_square(image), image[:, 80:560])
    np.testing.assert_array_equal(centre_square(image.swapaxes(0, 1)), image[:, 80:560].swapaxes(0, 1))


def test_whole_blocks_become_their_mean():
    image = picture(252, 252)
    means = image.reshape(84, 3, 84, 3, 3).mean(axis=(1, 3))
    np.testing.assert_array_equal(resize_by_area(image), np.round(means).astype(np.uint8))


def test_pixels_are_divided_where_blocks_are_not_whole():
    # 3 pixels to 2: each new one has one and a half of the old
    image = np.array([0, 90, 30], dtype=np.uint8).reshape(1, 3, 1).repeat(3, axis=0)
    np.testing.assert_array_equal(resize_by_area(image, 2)[0, :, 0], [30, 50])


def test_a_constant_stays_and_the_mean_is_kept():
    constant = np.full((480, 640, 3), 200, dtype=np.uint8)
    np.testing.assert_array_equal(to_policy_image(constant), np.full((84, 84, 3), 200, dtype=np.uint8))
    image = picture(480, 480)
    np.testing.assert_allclose(resize_by_area(image).mean(axis=(0, 1)), image.mean(axis=(0, 1)), atol=0.1)


def test_it_never_enlarges():
    with pytest.raises(ValueError, match="at least 84x84"):
        to_policy_image(picture(60, 640))
