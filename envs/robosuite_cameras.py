"""
Pictures of a MuJoCo scene: small ones for a policy, as fast as a software renderer allows, and good ones for people.

On a CPU the time goes into the vertices of robosuite's detailed meshes (180,000 triangles), not into the 84x84 pixels.
So a policy's cameras draw no shadows and no reflections, each of which draws the scene once more, take one sample a
pixel, and leave out what lies outside the field of view, which does not change a single pixel.
"""

from __future__ import annotations

import atexit
import importlib
import os
import sys
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

HIDDEN_GROUP = 5  # MuJoCo draws geometry of the groups 0 to 2 only, unless asked
COLLISION_GROUP, VISUAL_GROUP = 0, 1  # robosuite's convention


class _GLContext:
    """
    An OpenGL context that is current only inside of ``with``. Other renderers of the process, robosuite's among them,
    never make theirs current again, and would draw into this one or delete what belongs to it.

    :param size: pixels
    :raises RuntimeError: no OpenGL here
    """

    def __init__(self, size: int) -> None:
        try:
            self._egl = None
            if sys.platform != "linux":
                self._context: Any = importlib.import_module("mujoco").GLContext(size, size)
                return
            # mujoco.GLContext was chosen when mujoco was imported: without a display that may be GLFW, which aborts
            backend = "osmesa" if os.environ.get("MUJOCO_GL", "").lower() == "osmesa" else "egl"
            backend_context = importlib.import_module(f"mujoco.{backend}").GLContext
            if backend == "egl":
                self._egl = importlib.import_module("OpenGL.EGL")
            before = self._present()
            self._context = backend_context(size, size)
            self._restore(before)
        except Exception as error:  # each backend has its own ways to fail
            raise RuntimeError(
                f"Camera images need OpenGL, which could not be started ({error!r}). On Debian or Ubuntu: "
                "apt install libegl1 libegl-mesa0 libgl1-mesa-dri; or apt install libosmesa6 and set MUJOCO_GL=osmesa"
            ) from error

    def _present(self) -> Any:
        egl = self._egl
        if egl is None or not (context := egl.eglGetCurrentContext()):
            return None
        surfaces = [egl.eglGetCurrentSurface(which) for which in (egl.EGL_DRAW, egl.EGL_READ)]
        return egl.eglGetCurrentDisplay(), *surfaces, context

    def _restore(self, before: Any) -> None:
        egl = self._egl
        if egl is None:
            return
        if before is not None:
            egl.eglMakeCurrent(*before)
        elif display := egl.eglGetCurrentDisplay():
            egl.eglMakeCurrent(display, egl.EGL_NO_SURFACE, egl.EGL_NO_SURFACE, egl.EGL_NO_CONTEXT)

    def __enter__(self) -> None:
        self._before = self._present()
        self._context.make_current()

    def __exit__(self, *_: object) -> None:
        self._restore(self._before)

    def free(self) -> None:
        self._context.free()


class Cameras:
    """
    Square pictures of the model's cameras. It belongs to one model: make another when a model was loaded.

    :param model: mujoco.MjModel
    :param data: mujoco.MjData
    :param names: of cameras in the model
    :param size: pixels of an edge
    :param fast: without shadows, reflections and multisampling, and without what lies out of sight
    :raises ValueError: a camera that the model has not, or a size below 1
    :raises RuntimeError: no OpenGL here
    """

    def __init__(self, model: Any, data: Any, names: Sequence[str], size: int, fast: bool) -> None:
        import mujoco

        known = [model.camera(i).name for i in range(model.ncam)]
        for name in names:
            if name not in known:
                raise ValueError(f"camera {name!r} does not exist in the model. Cameras: {', '.join(known)}")
        if not isinstance(size, int | np.integer) or size < 1:
            raise ValueError(f"an image size must be a whole number of pixels, at least 1; got {size!r}. Usual: 84")
        self._mujoco, self.model, self._data, self.size, self._fast = mujoco, model, data, int(size), fast
        self._ids = [known.index(name) for name in names]
        self._gl: _GLContext | None = _GLContext(self.size)
        quality, window = model.vis.quality, model.vis.global_
        original = quality.offsamples, quality.shadowsize, window.offwidth, window.offheight
        window.offwidth = window.offheight = self.size
        if fast:
            quality.offsamples = quality.shadowsize = 0
        with self._gl:
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        quality.offsamples, quality.shadowsize, window.offwidth, window.offheight = original
        # EGL shuts down at exit and complains of contexts that outlive it; whoever forgot to close shall not see that
        atexit.register(_close_if_alive, weakref.ref(self))
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + model.nsite + 100)
        if fast:
            for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
                self._scene.flags[flag] = 0
        self._options = mujoco.MjvOption()
        self._options.geomgroup[COLLISION_GROUP], self._options.geomgroup[VISUAL_GROUP] = 0, 1
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._viewport = mujoco.MjrRect(0, 0, self.size, self.size)

    def render(self) -> list[np.ndarray]:
        """:return: for each camera (size, size, 3) uint8, upright"""
        assert self._gl is not None, "closed"
        with self._gl:
            return [self._draw(camera) for camera in self._ids]

    def _draw(self, camera: int) -> np.ndarray:
        mujoco, model = self._mujoco, self.model
        self._camera.fixedcamid = camera
        groups = model.geom_group.copy()
        if self._fast:
            model.geom_group[~self._in_sight(camera)] = HIDDEN_GROUP
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, self._data, self._options, None, self._camera, everything, self._scene)
        model.geom_group[:] = groups
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        image = np.empty((self.size, self.size, 3), np.uint8)
        mujoco.mjr_readPixels(image, None, self._viewport, self._context)
        return np.ascontiguousarray(image[::-1])  # OpenGL's first row is the lowest

    def _in_sight(self, camera: int) -> np.ndarray:
        """
        :param camera: index in the model
        :return: (ngeom,) bool: the geometry's bounding sphere reaches into the field of view
        """
        model, data = self.model, self._data
        # in the camera's frame: x right, y up, z backwards
        offset = (data.geom_xpos - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)
        radius = np.where(model.geom_rbound > 0, model.geom_rbound, np.inf)  # planes have none
        half_angle_rad = np.deg2rad(model.cam_fovy[camera]) / 2
        # distance beyond each pair of side planes, and beyond the plane through the camera
        beyond = np.abs(offset[:, :2]) * np.cos(half_angle_rad) + offset[:, 2:] * np.sin(half_angle_rad)
        return (beyond < radius[:, None]).all(axis=1) & (offset[:, 2] < radius)

    def close(self) -> None:
        """Free what the graphics library holds. Harmless when repeated."""
        if self._gl is not None:
            with self._gl:
                self._context.free()
            self._gl.free()
            self._gl = None


def _close_if_alive(cameras: weakref.ref[Cameras]) -> None:
    if (alive := cameras()) is not None:
        alive.close()


def open_viewer(model: Any, data: Any) -> Any:
    """
    :param model: mujoco.MjModel
    :param data: mujoco.MjData
    :return: MuJoCo's interactive viewer: ``sync()`` shows the present state
    :raises RuntimeError: there is no display
    """
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise RuntimeError(
            '`render_mode` "human" needs a display, and none is set. Use "rgb_array" to record pictures.'
        )
    from mujoco import viewer

    return viewer.launch_passive(model, data, show_left_ui=False, show_right_ui=False)
