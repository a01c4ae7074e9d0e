"""One HTML file with a map of city, receivers before and after, and walks; nothing is loaded from outside."""

import base64
import html
import io
import json
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Normalize
from PIL import Image

from jaxalign.gnss.city import City, buildings_of
from jaxalign.gnss.database import Database
from jaxalign.gnss.evaluation import Followed
from jaxalign.track import replacing

WORST_M = 30.0

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>__TITLE__</title><style>
body{margin:0;font:14px system-ui,sans-serif;display:flex;height:100vh}
#side{width:21em;padding:1em;overflow:auto;background:#f6f6f6;box-sizing:border-box}
#map{flex:1;background:#fff;cursor:grab}h1{font-size:1.1em}label{display:block;margin:.3em 0}pre{font-size:10px}
.bar{height:12px;background:linear-gradient(90deg,__RAMP__)}
</style></head><body><div id="side"><h1>__TITLE__</h1>
<label><input type="checkbox" data-layer="simulated" checked> simulated error (68 %)</label>
<label><input type="checkbox" data-layer="before"> receivers, error of the fix</label>
<label><input type="checkbox" data-layer="after"> receivers, error after correction</label>
<label><input type="checkbox" data-layer="arrows"> from fix to corrected place</label>
<label><input type="checkbox" data-layer="tracks" checked> walks: truth, fixes, filter</label>
<div class="bar"></div><div>0 m &nbsp; to &nbsp; __WORST__ m</div><p id="note">Wheel: zoom. Drag: move.</p>
<pre>__TABLE__</pre></div>
<svg id="map" viewBox="__VIEW__" preserveAspectRatio="xMidYMid meet"></svg>
<script>
const data=__DATA__,svg=document.getElementById("map");
function add(parent,name,attributes,text){const e=document.createElementNS(svg.namespaceURI,name);
 for(const k in attributes)e.setAttribute(k,attributes[k]);
 if(text){const t=document.createElementNS(svg.namespaceURI,"title");t.textContent=text;e.appendChild(t)}
 parent.appendChild(e);return e}
const layers={};for(const n of ["simulated","buildings","before","after","arrows","tracks"])layers[n]=add(svg,"g",{});
const line=p=>p.filter(q=>q[0]!==null).map(q=>q[0]+","+-q[1]).join(" ");
add(layers.simulated,"image",{x:data.box[0],y:-data.box[3],width:data.box[2]-data.box[0],height:data.box[3]-data.box[1],
 href:data.image,preserveAspectRatio:"none",style:"image-rendering:pixelated"});
for(const b of data.buildings)add(layers.buildings,"polygon",{points:line(b.ring),fill:"#bbb","fill-opacity":.6,
 stroke:"#777","stroke-width":.4},b.name+", "+b.top+" m");
for(const r of data.receivers){
 add(layers.before,"circle",{cx:r.truth[0],cy:-r.truth[1],r:2,fill:r.colour[0]},"fix off by "+r.error[0]+" m");
 add(layers.after,"circle",{cx:r.truth[0],cy:-r.truth[1],r:2,fill:r.colour[1]},"corrected: off by "+r.error[1]+" m");
 add(layers.arrows,"line",{x1:r.fix[0],y1:-r.fix[1],x2:r.place[0],y2:-r.place[1],stroke:"#0072B2","stroke-width":.6})}
for(const t of data.tracks){
 for(const q of t.fixes)if(q[0]!==null)add(layers.tracks,"circle",{cx:q[0],cy:-q[1],r:.9,fill:"#D55E00"});
 add(layers.tracks,"polyline",{points:line(t.filtered),fill:"none",stroke:"#0072B2","stroke-width":1.2});
 add(layers.tracks,"polyline",{points:line(t.truth),fill:"none",stroke:"#000","stroke-width":.8,
  "stroke-dasharray":"3 2"})}
for(const box of document.querySelectorAll("input")){
 const show=()=>layers[box.dataset.layer].style.display=box.checked?"":"none";box.onchange=show;show()}
let view=svg.getAttribute("viewBox").split(" ").map(Number),held=null;
const set=()=>svg.setAttribute("viewBox",view.join(" "));
svg.onwheel=e=>{e.preventDefault();const f=e.deltaY>0?1.15:1/1.15,m=svg.getScreenCTM().inverse(),
 p=new DOMPoint(e.clientX,e.clientY).matrixTransform(m);
 view=[p.x-(p.x-view[0])*f,p.y-(p.y-view[1])*f,view[2]*f,view[3]*f];set()};
svg.onpointerdown=e=>held=[e.clientX,e.clientY];window.onpointerup=()=>held=null;
svg.onpointermove=e=>{if(!held)return;const s=1/svg.getScreenCTM().a;
 view[0]-=(e.clientX-held[0])*s;view[1]-=(e.clientY-held[1])*s;held=[e.clientX,e.clientY];set()};
document.body.dataset.ready="yes";
</script></body></html>
"""


def write_map(
    path: str | Path,
    title: str,
    city: City,
    database: Database,
    slice_: int,
    receivers: tuple[np.ndarray, np.ndarray, np.ndarray],
    followed: list[Followed],
    table: str,
) -> None:
    """Writes the map.

    Args:
        path: of the HTML file.
        title: of the page.
        city: buildings to draw.
        database: whose simulated error is the background.
        slice_: of the database.
        receivers: truth, fixes and corrected places ``[M, 2]``; NaN where there is no fix.
        followed: walks.
        table: plain text shown beside the map.
    """
    grid = database.grid
    rows, columns = grid.shape
    east, north = (float(value) for value in grid.low_m)
    box = [east, north, east + columns * grid.spacing_m, north + rows * grid.spacing_m]
    data = {
        "box": box,
        "image": _error_image(database, slice_),
        "buildings": [
            {"ring": _points(building.rings[0]), "name": building.name, "top": round(building.top_m, 1)}
            for building in buildings_of(city)
        ],
        "receivers": _receivers(*receivers),
        "tracks": [
            {
                "truth": _points(track.epoch.truth_m),
                "fixes": _points(track.places["none"]),
                "filtered": _points(track.places["twin HMM"]),
            }
            for track in followed
        ],
    }
    replaced = {
        "__TITLE__": html.escape(title),
        "__RAMP__": ",".join(_colour(value) for value in np.linspace(0, WORST_M, 9)),
        "__WORST__": f"{WORST_M:.0f}",
        "__TABLE__": html.escape(table),
        "__VIEW__": f"{box[0]} {-box[3]} {box[2] - box[0]} {box[3] - box[1]}",
        "__DATA__": json.dumps(data, allow_nan=False).replace("</", "<\\/"),
    }
    page = _PAGE
    for mark, text in replaced.items():
        page = page.replace(mark, text)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _receivers(truth_m, fix_m, place_m):
    found = []
    for truth, fix, place in zip(truth_m, fix_m, place_m, strict=True):
        if not np.isfinite(fix).all():
            continue
        error = [float(np.hypot(*(point - truth))) for point in (fix, place)]
        found.append(
            {
                "truth": _point(truth),
                "fix": _point(fix),
                "place": _point(place),
                "error": [round(value, 1) for value in error],
                "colour": [_colour(value) for value in error],
            }
        )
    return found


def _error_image(database, slice_):
    """The simulated error as a PNG within the page."""
    part, grid = database.statistics, database.grid
    value = grid.raster(np.asarray(part.quantile_m[slice_][:, 1], float))
    known = grid.raster(part.availability[slice_] > 0)
    pixels = np.round(255 * np.asarray(colormaps["viridis"](Normalize(0, WORST_M, clip=True)(value)))).astype(np.uint8)
    pixels[..., 3] = np.where(known, 255, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels[::-1]).save(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _colour(error_m):
    red, green, blue, _ = colormaps["viridis"](min(error_m / WORST_M, 1.0))
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _point(point):
    return [round(float(value), 1) if np.isfinite(value) else None for value in point[:2]]


def _points(points):
    return [_point(point) for point in points]
